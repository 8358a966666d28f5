// The counterpart of refused_uploads.py, with Node's own HTTP/2 client.

import { readFileSync } from 'node:fs';
import http2 from 'node:http2';

function body(size) {
  const [head, tail] = ['{"model":"unpermitted","messages":["', '"]}'];
  return Buffer.from(head + 'x'.repeat(size - head.length - tail.length) + tail);
}

function send(call, job) {
  const { origin, pathname } = new URL(call.url);
  const ca = readFileSync(job.certificate);
  return new Promise((resolve) => {
    const session = http2.connect(origin, { ca });
    const end = (outcome) => {
      clearTimeout(timer);
      session.destroy();
      resolve(outcome);
    };
    const timer = setTimeout(() => end('timeout'), job.patience * 1000);
    session.on('error', (error) => end(error.code));
    const headers = { ':method': 'POST', ':path': pathname, 'content-type': 'application/json' };
    if (call.authorization) headers.authorization = call.authorization;
    const stream = session.request({ ...headers, 'content-length': call.size });
    let status;
    stream.on('response', (head) => {
      status = head[':status'];
    });
    stream.on('error', (error) => end(status ?? error.code));
    stream.on('data', () => {});
    stream.on('close', () => end(status ?? 'closed'));
    stream.end(body(call.size));
  });
}

const job = JSON.parse(readFileSync(0));
const outcomes = [];
for (const call of job.calls) outcomes.push(await send(call, job));
process.stdout.write(JSON.stringify(outcomes));
