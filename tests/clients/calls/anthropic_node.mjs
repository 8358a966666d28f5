// The official JavaScript client of Anthropic.

import Anthropic from "@anthropic-ai/sdk";
import { JOB, MESSAGES, collected, fetch, run } from "./report.mjs";

const ask = { messages: MESSAGES, max_tokens: 64 };

const at = (end, apiKey) => new Anthropic({ baseURL: JOB.base + end, apiKey, maxRetries: 0, fetch });
const chat = async (client, model) =>
  (await client.messages.create({ model, ...ask })).content[0].text;

async function stream(client, model) {
  const words = [];
  const events = client.messages.stream({ model, ...ask });
  events.on("text", (word) => words.push(word));
  await events.finalMessage();
  return words;
}

const models = (client) => collected(client.models.list(), (model) => model.id);

await run({ at, chat, stream, models, right: "", wrong: ["/v1"] });
