// The AI SDK with its provider `openai-compatible`, and with `openai`.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import { JOB, collected, fetch, reportCase, run } from "./report.mjs";

const ask = { prompt: "Say hello.", maxRetries: 0 };

const at = (end, apiKey) =>
  createOpenAICompatible({ name: "gateway", baseURL: JOB.base + end, apiKey, fetch });
const chat = async (provider, model) => (await generateText({ model: provider(model), ...ask })).text;

async function stream(provider, model) {
  let failed;
  const onError = ({ error }) => (failed = error);
  const { textStream } = streamText({ model: provider(model), ...ask, onError });
  const words = await collected(textStream, (word) => word);
  if (failed) throw failed;
  return words;
}

await run({ at, chat, stream, right: "/v1", wrong: ["", "/v1/v1"] });

const openai = (token) => createOpenAI({ baseURL: `${JOB.base}/v1`, apiKey: token, fetch });
for (const [name, call, token, model] of [
  ["chat", chat, JOB.token, JOB.model],
  ["stream", stream, JOB.token, JOB.model],
  ["wrong model", chat, JOB.limited, JOB.other_model],
  ["expired token", chat, JOB.expired, JOB.model],
]) {
  // What it asks by default is the API of responses.
  await reportCase(`openai: ${name}`, () => call(openai(token), model));
  await reportCase(`openai.chat: ${name}`, () => call(openai(token).chat, model));
}
