// Ollama's JavaScript client.

import { Ollama } from "ollama";
import { JOB, MESSAGES, collected, fetch, run } from "./report.mjs";

function at(end, token) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return new Ollama({ host: JOB.base + end, headers, fetch });
}

const chat = async (client, model) =>
  (await client.chat({ model, messages: MESSAGES })).message.content;
const stream = async (client, model) =>
  collected(
    await client.chat({ model, messages: MESSAGES, stream: true }),
    (part) => part.message.content,
  );
const models = async (client) => (await client.list()).models.map((model) => model.model);

await run({ at, chat, stream, models, right: "", wrong: ["/v1", "/api"] });
