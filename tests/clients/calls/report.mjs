// What report.py does, for the clients that run in Node.

import { readFileSync } from "node:fs";
import { Agent, fetch as undici } from "undici";

export const JOB = JSON.parse(readFileSync(0, "utf8"));
export const MESSAGES = [{ role: "user", content: "Say hello." }];

// Speaks HTTP/2 where the server agrees, as Node's own does only when asked.
const dispatcher = new Agent({ allowH2: true, connect: { ca: readFileSync(JOB.ca) } });
export const fetch = (url, init) => undici(url, { ...init, dispatcher });

export async function reportCase(name, call) {
  let line;
  try {
    line = { returned: await call() };
  } catch (error) {
    const generic = error.name === "Error";
    line = { error: generic ? error.constructor.name : error.name, says: error.message };
  }
  console.log(JSON.stringify({ case: name, ...line }));
}

export async function run({ at, chat, stream, models, right, wrong, name = "" }) {
  const { model, other_model: other, token, limited, expired } = JOB;
  const report = (what, call) => reportCase(name + what, call);
  const list = (what, end, token) => models && report(what, () => models(at(end, token)));
  await report("chat", () => chat(at(right, token), model));
  await report("stream", () => stream(at(right, token), model));
  await list("list", right, token);
  await list("list of a limited token", right, limited);
  await report("wrong model", () => chat(at(right, limited), other));
  await report("wrong model, streamed", () => stream(at(right, limited), other));
  for (const end of wrong) {
    await report(`wrong base URL '${end}'`, () => chat(at(end, token), model));
    await list(`wrong base URL '${end}', list`, end, token);
  }
  await report("no token", () => chat(at(right, undefined), model));
  await report("expired token", () => chat(at(right, expired), model));
  await report("expired token, streamed", () => stream(at(right, expired), model));
  await list("expired token, list", right, expired);
}

export async function collected(iterable, read) {
  const all = [];
  for await (const item of iterable) {
    const value = read(item);
    if (value) all.push(value);
  }
  return all;
}
