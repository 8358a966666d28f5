// The official JavaScript client of OpenAI in Chromium, on pages of two origins: one that the
// gateway lists, and one that it does not.
//
// The pages are served here, and Chromium resolves both names to this machine. It trusts every
// certificate; all else is as in any browser.

import { createServer } from "node:https";
import { readFile } from "node:fs/promises";
import { readFileSync } from "node:fs";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

const JOB = JSON.parse(readFileSync(0, "utf8"));
const PACKAGE = new URL("../node_modules/openai/", import.meta.url).pathname;
const TYPES = { ".mjs": "text/javascript", ".js": "text/javascript" };

async function serve(request, response) {
  const path = normalize(new URL(request.url, "https://page").pathname);
  if (!path.startsWith("/openai/")) {
    response.writeHead(200, { "content-type": "text/html" });
    return response.end("<!doctype html><title>A page that chats</title>");
  }
  try {
    const script = await readFile(join(PACKAGE, path.slice("/openai/".length)));
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "text/plain" });
    response.end(script);
  } catch {
    response.writeHead(404).end();
  }
}

// What a page does. It runs in the browser.
async function calls({ base, token, limited, expired, model, other_model: other }) {
  const { default: OpenAI } = await import("/openai/index.mjs");
  const messages = [{ role: "user", content: "Say hello." }];
  const lines = [];
  const at = (end, apiKey) =>
    new OpenAI({ baseURL: base + end, apiKey, maxRetries: 0, dangerouslyAllowBrowser: true });

  async function chat(end, apiKey, model) {
    const completion = await at(end, apiKey).chat.completions.create({ model, messages });
    return completion.choices[0].message.content;
  }

  async function stream(end, apiKey, model) {
    const words = [];
    const asked = { model, messages, stream: true };
    for await (const chunk of await at(end, apiKey).chat.completions.create(asked)) {
      if (chunk.choices[0].delta.content) words.push(chunk.choices[0].delta.content);
    }
    return words;
  }

  async function report(name, call) {
    try {
      lines.push({ case: name, returned: await call() });
    } catch (error) {
      // What a page can show its user, and find in the logs.
      const id = error.requestID ? ` (request ${error.requestID.length} long)` : "";
      lines.push({ case: name, error: error.constructor.name, says: error.message + id });
    }
  }

  await report("chat", () => chat("/v1", token, model));
  await report("stream", () => stream("/v1", token, model));
  await report("list", async () => (await at("/v1", token).models.list()).data.map((m) => m.id));
  await report("wrong model", () => chat("/v1", limited, other));
  await report("wrong model, streamed", () => stream("/v1", limited, other));
  await report("wrong base URL", () => chat("", token, model));
  await report("expired token", () => chat("/v1", expired, model));
  return lines;
}

// What the console and the network log show to the person who looks into them.
async function watch(page, context) {
  const seen = { console: [], preflights: [] };
  page.on("console", (message) => seen.console.push(message.text()));
  const log = await context.newCDPSession(page);
  await log.send("Network.enable");
  log.on("Network.responseReceived", ({ type, response }) => {
    if (type === "Preflight") seen.preflights.push(response.status);
  });
  return seen;
}

const tls = { cert: readFileSync(JOB.ca), key: readFileSync(JOB.key) };
const server = createServer(tls, serve).listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));
const names = `MAP *.example.com:443 127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({
  executablePath: JOB.chromium,
  args: ["--no-sandbox", "--disable-dev-shm-usage", `--host-resolver-rules=${names}`],
});
try {
  for (const [name, origin] of [
    ["listed: ", "https://app.example.com"],
    ["unlisted: ", "https://evil.example.com"],
  ]) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    await page.goto(`${origin}/`);
    const seen = await watch(page, context);
    const lines = await page.evaluate(calls, JOB);
    const blocked = seen.console.filter((text) => text.includes("CORS"));
    lines.push({ case: "blocked, in the console", returned: blocked.length });
    lines.push({ case: "preflights", returned: [...new Set(seen.preflights)] });
    for (const line of lines) {
      console.log(JSON.stringify({ ...line, case: name + line.case }));
    }
    await context.close();
  }
} finally {
  await browser.close();
  server.close();
}
