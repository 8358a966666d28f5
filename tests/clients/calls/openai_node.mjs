// The official JavaScript client of OpenAI, and its variant for Azure, which sends the key in
// `api-key`.

import OpenAI, { AzureOpenAI } from "openai";
import { JOB, MESSAGES, collected, fetch, reportCase, run } from "./report.mjs";

const options = { maxRetries: 0, fetch };
const at = (end, apiKey) => new OpenAI({ baseURL: JOB.base + end, apiKey, ...options });
const azureAt = (end, apiKey) =>
  new AzureOpenAI({ endpoint: JOB.base + end, apiKey, apiVersion: "2024-10-21", ...options });

async function chat(client, model) {
  const completion = await client.chat.completions.create({ model, messages: MESSAGES });
  return completion.choices[0].message.content;
}

async function stream(client, model) {
  const asked = { model, messages: MESSAGES, stream: true };
  const chunks = await client.chat.completions.create(asked);
  return collected(chunks, (chunk) => chunk.choices[0].delta.content);
}

const models = (client) => collected(client.models.list(), (model) => model.id);

await run({ at, chat, stream, models, right: "/v1", wrong: ["", "/v1/v1"] });
await run({ at: azureAt, chat, stream, models, right: "", wrong: ["/v1", "/openai"], name: "azure: " });
await reportCase("responses", async () => {
  const asked = { model: JOB.model, input: "Say hello." };
  return (await at("/v1", JOB.token).responses.create(asked)).output_text;
});
