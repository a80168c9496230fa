// Calls the Messages API with the client that takes no argument, as a program would that knows nothing of Keyward.
//
// call.cjs ask        one message, and the text of the answer
// call.cjs stream     one message as a stream, and its text
// call.cjs outlive S  messages for S seconds, and a line for each token that was used; exit 1 at the first that fails
"use strict";

const Anthropic = require("@anthropic-ai/sdk");

const QUESTION = {
    model: "claude-sandbox-1",
    max_tokens: 64,
    messages: [{ role: "user", content: "hello" }],
};

async function ask(client) {
    return (await client.messages.create(QUESTION)).content[0].text;
}

async function stream(client) {
    let text = "";
    for await (const event of await client.messages.create({ ...QUESTION, stream: true })) {
        if (event.type === "content_block_delta") {
            text += event.delta.text;
        }
    }
    return text;
}

async function outlive(client, seconds) {
    const seen = [];
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
        let text;
        try {
            text = await ask(client);
        } catch (error) {
            console.log(`${error.constructor.name} after ${seen}: ${error.message}`);
            process.exit(1);
        }
        if (!seen.includes(text)) {
            seen.push(text);
            console.log(text);
        }
        await new Promise((later) => setTimeout(later, 200));
    }
}

async function main() {
    const client = new Anthropic();
    const [task, seconds] = process.argv.slice(2);
    if (task === "outlive") {
        await outlive(client, Number(seconds));
    } else {
        console.log(await { ask, stream }[task](client));
    }
}

main().catch((error) => {
    console.log(`${error.constructor.name}: ${error.message}`);
    process.exit(1);
});
