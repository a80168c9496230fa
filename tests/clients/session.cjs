// Does with @anthropic-ai/sdk what session.py does with its clients.
"use strict";

const { spawn } = require("node:child_process");
const { createInterface } = require("node:readline");
const Anthropic = require("@anthropic-ai/sdk");
const { VERSION: version } = require("@anthropic-ai/sdk/version");

const QUESTION = {
    model: "claude-sandbox-1",
    max_tokens: 64,
    messages: [{ role: "user", content: "hello" }],
};

const client = new Anthropic();
const children = [];

const DO = {
    version: async () => version,
    ask: async () => (await client.messages.create(QUESTION)).content[0].text,
    stream: async () => client.messages.stream(QUESTION).finalText(),
    child: async () => {
        children.push(spawn("sleep", ["600"], { stdio: "ignore" }));
        return children.at(-1).pid;
    },
};

async function main() {
    for await (const line of createInterface({ input: process.stdin })) {
        try {
            console.log(await DO[line.trim()]());
        } catch (error) {
            console.log(`error ${error.constructor.name}: ${error.message}`.replace(/\s+/g, " "));
        }
    }
    children.forEach((child) => child.kill());
}

main();
