"""Calls a model API whenever it is told to, as a program does that runs all day and knows nothing of Keyward.

session.py CLIENT  CLIENT is anthropic, bedrock, vertex, foundry, boto3 or openai. The client is made once, takes no argument
                   but what its service cannot do without, and is kept. A line of input is what is wanted, a line of output
                   says what came of it:
                     version  the version of the client's package
                     ask      one message: the text of the answer
                     stream   one message as a stream: its text
                     child    starts a program, which inherits what programs do: its process id
                   A line that begins with "error " tells what the client raised.
"""

import importlib.metadata
import subprocess
import sys

MODEL = "anthropic.claude-sandbox-1"
TURN = [{"role": "user", "content": "hello"}]


class Messages:
    """A class of the package `anthropic`."""

    def __init__(self, name):
        import anthropic

        self.client = getattr(anthropic, name)()
        self.package = "anthropic"

    def ask(self):
        return self.client.messages.create(model=MODEL, max_tokens=64, messages=TURN).content[0].text

    def stream(self):
        with self.client.messages.stream(model=MODEL, max_tokens=64, messages=TURN) as events:
            return "".join(events.text_stream)


class Converse:
    """Bedrock by the SDK of AWS."""

    def __init__(self):
        import boto3

        self.client = boto3.client("bedrock-runtime")
        self.package = "boto3"
        self.turn = [{"role": "user", "content": [{"text": "hello"}]}]

    def ask(self):
        answer = self.client.converse(modelId=MODEL, messages=self.turn)
        return answer["output"]["message"]["content"][0]["text"]

    def stream(self):
        events = self.client.converse_stream(modelId=MODEL, messages=self.turn)["stream"]
        deltas = (event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
        return "".join(deltas)


class Responses:
    """The package `openai`."""

    def __init__(self):
        import openai

        self.client = openai.OpenAI()
        self.package = "openai"

    def ask(self):
        return self.client.responses.create(model=MODEL, input="hello").output_text

    def stream(self):
        events = self.client.chat.completions.create(model=MODEL, messages=TURN, stream=True)
        return "".join(event.choices[0].delta.content or "" for event in events)


CLIENTS = {
    "anthropic": lambda: Messages("Anthropic"),
    "bedrock": lambda: Messages("AnthropicBedrock"),
    "vertex": lambda: Messages("AnthropicVertex"),
    "foundry": lambda: Messages("AnthropicFoundry"),
    "boto3": Converse,
    "openai": Responses,
}


def main():
    client = CLIENTS[sys.argv[1]]()
    children = []
    for line in sys.stdin:
        wanted = line.strip()
        try:
            if wanted == "version":
                said = importlib.metadata.version(client.package)
            elif wanted == "child":
                children.append(subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL))
                said = children[-1].pid
            else:
                said = {"ask": client.ask, "stream": client.stream}[wanted]()
        except Exception as error:
            said = "error " + " ".join(f"{type(error).__name__}: {error}".split())
        print(said, flush=True)
    for child in children:
        child.kill()


main()
