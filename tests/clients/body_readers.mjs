// The counterpart of body_readers.py, with Node's own readers.

import { readFileSync } from "node:fs";
import zlib from "node:zlib";

async function read(kind, contentType, body) {
  if (kind === "form") {
    const form = await new Response(body, { headers: { "content-type": contentType } }).formData();
    return form.get("model");
  }
  return JSON.parse(new TextDecoder().decode(body))?.model ?? null;
}

// Like busboy, which keeps the first 80 KiB of a part's headers and silently drops the rest.
function cutHeaders(kind, contentType, body) {
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

// Node 20 has no zstd.
const DECODERS = { gzip: zlib.gunzipSync, zstd: zlib.zstdDecompressSync };

async function readAs(prefix, kind, contentType, body, models) {
  const readers = { node: read };
  if (kind === "form") readers.busboy = cutHeaders;
  for (const [name, reader] of Object.entries(readers)) {
    try {
      const model = await reader(kind, contentType, body);
      // Half of a surrogate pair cannot be represented everywhere.
      models[prefix + name] = typeof model === "string" ? Buffer.from(model).toString() : model;
    } catch {
      // This reader refuses the body.
    }
  }
}

const seen = [];
for (const [kind, headers, encoded] of JSON.parse(readFileSync(0, "utf8"))) {
  const { "content-type": contentType = "", "content-encoding": encoding = "" } =
    Object.fromEntries(headers);
  const body = Buffer.from(encoded, "base64");
  const models = {};
  await readAs("", kind, contentType, body, models);
  const decode = DECODERS[encoding.toLowerCase()];
  if (decode) {
    let decoded;
    try {
      decoded = decode(body);
    } catch {
      // The content does not match its declared encoding.
    }
    if (decoded) await readAs("decoded+", kind, contentType, decoded, models);
  }
  seen.push(models);
}
process.stdout.write(JSON.stringify(seen));
