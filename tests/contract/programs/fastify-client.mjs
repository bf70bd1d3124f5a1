// What clients of the Fastify server see, as lines: node fastify-client.mjs <port>
import { createHash } from 'node:crypto';

const [port] = process.argv.slice(2);
const say = (...values) => console.log(JSON.stringify(values));

const digest = (body) => (body.length > 500 ? `${body.length} bytes, ${createHash('sha1').update(body).digest('hex')}` : body.toString());

async function ask(method, path, type, body) {
  const headers = { 'x-agent': 'contract', ...(type === undefined ? {} : { 'content-type': type }) };
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method, headers, body, signal: AbortSignal.timeout(10_000) });
  const seen = ['content-type', 'content-length', 'x-began'].map((name) => answer.headers.get(name));
  // As RFC 9110 §8.6 wants it: the original sends one.
  if (answer.status === 204) seen[1] = null;
  say(method, path, answer.status, ...seen, digest(Buffer.from(await answer.arrayBuffer())));
}

const json = 'application/json';
await ask('GET', '/');
await ask('GET', '/users/5?a=1&b=two');
await ask('POST', '/json', json, JSON.stringify({ a: [1, 2, { b: 'é' }] }));
await ask('POST', '/json', json, '{ not json');
await ask('POST', '/json', json, JSON.stringify({ long: 'x'.repeat(100_000) }));
await ask('PUT', '/bytes', 'application/octet-stream', Buffer.alloc(5_000_000, 'bytes'));
await ask('PUT', '/bytes', 'application/octet-stream', Buffer.from([0, 1, 255]));
await ask('POST', '/checked', json, JSON.stringify({ name: 'checked' }));
await ask('POST', '/checked', json, JSON.stringify({ no: 'name' }));
await ask('POST', '/json', 'text/strange', 'what is this');
await ask('DELETE', '/users/5');
await ask('GET', '/stream');
await ask('GET', '/large');
await ask('GET', '/fails');
await ask('GET', '/nowhere');
const many = Array.from({ length: 20 }, (_, index) =>
  fetch(`http://127.0.0.1:${port}/json`, { method: 'POST', headers: { 'content-type': json }, body: `{"number":${index}}` }),
);
const answers = await Promise.all(many);
say('at once', ...(await Promise.all(answers.map((answer) => answer.text()))));
say('done');
process.exit(0);
