"""Calls the Messages API with the client that takes no argument, as a program would that knows nothing of Keyward.

call.py ask        one message, and the text of the answer
call.py stream     one message as a stream, and its text
call.py outlive S  messages for S seconds, and a line for each token that was used; exit 1 at the first that fails
"""

import sys
import time

import anthropic

QUESTION = {
    "model": "claude-sandbox-1",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "hello"}],
}


def ask(client):
    return client.messages.create(**QUESTION).content[0].text


def stream(client):
    with client.messages.stream(**QUESTION) as events:
        return "".join(events.text_stream)


def outlive(client, seconds):
    seen = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            text = ask(client)
        except anthropic.AnthropicError as error:
            print(f"{type(error).__name__} after {seen}: {error}", flush=True)
            sys.exit(1)
        if text not in seen:
            seen.append(text)
            print(text, flush=True)
        time.sleep(0.2)


def main():
    client = anthropic.Anthropic()
    task = sys.argv[1]
    if task == "outlive":
        outlive(client, int(sys.argv[2]))
    else:
        print({"ask": ask, "stream": stream}[task](client), flush=True)


main()
