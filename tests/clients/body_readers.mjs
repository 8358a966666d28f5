// The same as body_readers.py, with what Node has of its own.

import { readFileSync } from "node:fs";

async function read(contentType, body) {
  if (contentType.startsWith("multipart/")) {
    const form = await new Response(body, { headers: { "content-type": contentType } }).formData();
    return form.get("model");
  }
  return JSON.parse(new TextDecoder().decode(body))?.model ?? null;
}

const seen = [];
for (const [contentType, encoded] of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    const model = await read(contentType, Buffer.from(encoded, "base64"));
    // Half a surrogate pair cannot be carried everywhere.
    seen.push({ node: typeof model === "string" ? Buffer.from(model).toString() : model });
  } catch {
    seen.push({});
  }
}
process.stdout.write(JSON.stringify(seen));
