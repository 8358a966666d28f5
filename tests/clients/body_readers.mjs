// The same as body_readers.py, with what Node has of its own.

import { readFileSync } from "node:fs";

async function read(contentType, body) {
  if (contentType.startsWith("multipart/")) {
    const form = await new Response(body, { headers: { "content-type": contentType } }).formData();
    return form.get("model");
  }
  return JSON.parse(new TextDecoder().decode(body))?.model ?? null;
}

// As busboy, which keeps the first 80 KiB of a part's headers and drops the rest without a word.
function cutHeaders(contentType, body) {
  const boundary = /boundary="?([^";]+)/.exec(contentType)[1];
  let model;
  for (const part of body.toString("latin1").split(`--${boundary}`).slice(1)) {
    const end = part.indexOf("\r\n\r\n");
    if (end < 0) continue;
    const head = part.slice(2, end).slice(0, 80 * 1024);
    const name = /^content-disposition:.*;\s*name="?([^";\r\n]*)/im.exec(head)?.[1];
    if (name === "model") model = part.slice(end + 4, -2);
  }
  return model === undefined ? null : Buffer.from(model, "latin1").toString();
}

const seen = [];
for (const [contentType, encoded] of JSON.parse(readFileSync(0, "utf8"))) {
  const body = Buffer.from(encoded, "base64");
  const models = {};
  const readers = { node: read };
  if (contentType.startsWith("multipart/")) readers.busboy = cutHeaders;
  for (const [name, reader] of Object.entries(readers)) {
    try {
      const model = await reader(contentType, body);
      // Half a surrogate pair cannot be carried everywhere.
      models[name] = typeof model === "string" ? Buffer.from(model).toString() : model;
    } catch {
      // It refuses the body.
    }
  }
  seen.push(models);
}
process.stdout.write(JSON.stringify(seen));
