/**
 * What handlers are given leads to the bytes of its own connection and to nobody else's, whichever way somebody looks at it: logs, copies,
 * serialisers, and a walk over everything that can be reached.
 */
import { describe, expect, setDefaultTimeout, test } from 'bun:test';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { frame, handshake, opcode } from '../support/frames.mjs';
import { startGateway } from '../support/gateway.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

/** In a file of its own beside the program: what each way of looking at `value` finds of other clients. */
const looking = `
import { inspect } from 'node:util';
export const secret = /other-client-secret/;

/** Everything that properties, symbols, private ones of the language excepted, lead to, and the bytes of every buffer on the way. */
function walk(value, seen, out) {
  if (typeof value === 'string') { out.push(value); return; }
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value)) return;
  seen.add(value);
  if (ArrayBuffer.isView(value)) { out.push(Buffer.from(value.buffer).toString('latin1')); return; }
  if (value instanceof ArrayBuffer) { if (!value.detached) out.push(Buffer.from(value).toString('latin1')); return; }
  if (value instanceof Map) for (const [key, each] of value) { walk(key, seen, out); walk(each, seen, out); }
  if (value instanceof Set) for (const each of value) walk(each, seen, out);
  if (value instanceof Headers) for (const [key, each] of value) out.push(key, each);
  for (const key of Reflect.ownKeys(value)) {
    const field = Object.getOwnPropertyDescriptor(value, key);
    if (field !== undefined && 'value' in field) walk(field.value, seen, out);
  }
}

export function look(name, value) {
  const found = [];
  const texts = {
    'console.log': () => Bun.inspect(value, { depth: 100 }),
    'util.inspect': () => inspect(value, { showHidden: true, depth: Infinity, maxArrayLength: Infinity, maxStringLength: Infinity, getters: true }),
    'util.inspect without custom': () => inspect(value, { showHidden: true, depth: Infinity, customInspect: false, maxArrayLength: Infinity, maxStringLength: Infinity }),
    'JSON.stringify': () => JSON.stringify(value) ?? '',
    structuredClone: () => inspect(structuredClone(value), { showHidden: true, depth: Infinity, maxStringLength: Infinity, maxArrayLength: Infinity }),
    'a walk': () => { const out = []; walk(value, new Set(), out); return out.join(' '); },
  };
  for (const [way, text] of Object.entries(texts)) {
    let shown = '';
    try { shown = text(); } catch (error) { if (!(error instanceof DOMException) && !/circular|cyclic|BigInt/i.test(String(error))) found.push(name + ', ' + way + ': ' + error); }
    // Buffers are printed as numbers: in hexadecimal, or in decimal.
    const bytes = Buffer.from('other-client-secret');
    if (secret.test(shown) || shown.includes(bytes.toString('hex').replace(/(..)(?=.)/g, '$1 ')) || shown.includes([...bytes].join(', ')) || shown.includes([...bytes].join(','))) found.push(name + ', by ' + way);
  }
  return found;
}
export const printed = (value) => Bun.inspect(value);
`;

const config = `
import { Hono } from 'hono';
import { defineGateway, onPresence, presence, publish, subscribe, upgradeWebSocket } from 'ringway';
import { look, printed } from './looking.ts';
const app = new Hono();
/** What policies and listeners have found. */
const seen = ['nothing was looked at'];
const lookAt = (name, value) => { seen.splice(0, seen.length, ...seen.filter((each) => each !== 'nothing was looked at'), ...look(name, value)); return true; };
let waits;
app.get('/wait', () => new Promise((resolve) => { waits = resolve; }));
app.post('/release', (c) => { waits?.(new Response('released')); return c.text('ok'); });
app.post('/look', async (c) => {
  const response = c.text('x');
  const found = [...look('env', c.env), ...look('request', c.req.raw), ...look('context', c), ...look('response', response), ...look('publish', publish)];
  await c.req.text();
  found.push(...look('request that was read', c.req.raw), ...look('clone', c.req.raw.clone === undefined ? {} : c.env));
  return c.json({ found, printed: [printed(c.env), printed(c.req.raw), printed(response)] });
});
app.get('/hono', upgradeWebSocket(() => ({ onMessage: (event, ws) => ws.send(JSON.stringify({ found: [...look('event', event), ...look('ws', ws), ...look('raw', ws.raw)] })) })));
export default defineGateway({
  $OPTIONS, fetch: app,
  topics: {
    'room/:name': {
      history: { size: 1, seconds: 1 },
      presence: { member: (client) => (lookAt('client of member', client), client.id) },
      authorize: (client) => lookAt('client of authorize', client),
    },
  },
  websocket: {
    '/ws/:room': {
      upgrade: (request, client) => ({ found: [...look('handshake', request), ...look('client', client)] }),
      async message(socket, message) {
        const found = [...socket.data.found, ...look('socket', socket), ...look('message', message)];
        const shown = [printed(message), printed(socket)];
        await 0;
        found.push(...look('subscription of the program', await subscribe('room/y', (...heard) => lookAt('heard', heard))));
        found.push(...look('of presence', await onPresence('room/x', (event) => lookAt('event', event))));
        found.push(...look('subscription', await socket.subscribe('room/x', {})), ...look('presence', await presence('room/x')));
        found.push(...look('published', await publish('room/y', 'text', {})), ...seen);
        found.push(...look('message that is kept', message), ...look('its bytes', message.bytes()));
        socket.send(JSON.stringify({ found, printed: shown }));
      },
    },
  },
});
`;

const secretField = 'Cookie: session=other-client-secret\r\nAuthorization: Bearer other-client-secret\r\n';

interface Report {
  readonly found: readonly string[];
  readonly printed?: readonly string[];
}

async function reportOver(port: number, target: string, text: string): Promise<Report> {
  const wire = await Wire.connect(port);
  try {
    wire.write(handshake(target));
    expect(await wire.head()).toStartWith('HTTP/1.1 101');
    wire.write(frame(opcode.text, text));
    return JSON.parse((await wire.frame())?.payload.toString() ?? '') as Report;
  } finally {
    wire.destroy();
  }
}

describe('a gateway', () => {
  test('messages, sockets, requests, responses and bindings lead to nothing of other clients', async () => {
    const gateway = await startGateway({ config, files: { 'looking.ts': looking } });
    const others: Wire[] = [];
    try {
      // One waits for its response, two hold a WebSocket open, and their heads lie in the core's memory as well as in tables of frontends.
      for (const target of ['/wait', '/ws/a', '/hono']) {
        const other = await Wire.connect(gateway.port);
        others.push(other);
        const head = target === '/wait' ? `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n` : handshake(target).toString();
        other.write(head.replace('\r\n\r\n', `\r\n${secretField}\r\n`));
        if (target !== '/wait') expect(await other.head()).toStartWith('HTTP/1.1 101');
        if (target !== '/wait') other.write(frame(opcode.text, 'other-client-secret '.repeat(200)));
        if (target !== '/wait') await other.frame();
      }
      const http = (await (
        await fetch(`${gateway.url}/look`, { method: 'POST', body: 'own', headers: { 'x-own': 'mine' } })
      ).json()) as Report;
      expect(http.found).toEqual([]);
      expect(http.printed?.[0]).toBe('RingwayBindings {\n  listener: 0,\n}');
      expect(http.printed?.[1]).toContain('"x-own": "mine"');
      const sized = await reportOver(gateway.port, '/ws/a', 'hello');
      expect(sized.found).toEqual([]);
      expect(sized.printed?.[0]).toBe('Message {\n  isBinary: false,\n  byteLength: 5,\n}');
      expect(sized.printed?.[1]).toContain('room: "a"');
      // One that does not fit the payload area lies elsewhere.
      expect((await reportOver(gateway.port, '/ws/a', 'x'.repeat(300_000))).found).toEqual([]);
      expect((await reportOver(gateway.port, '/hono', 'hello')).found).toEqual([]);
    } finally {
      for (const other of others) other.destroy();
      await gateway.stop();
    }
  });
});

const program = `
import * as uWS from 'ringway/uws';
import { look, printed } from './looking.ts';
const waiting = [];
const app = uWS.App();
app.get('/wait', (res, req) => { res.onAborted(() => {}); waiting.push(res, req); });
app.post('/look', (res, req) => {
  res.own = 'mine';
  const found = [...look('app', app), ...look('request', req), ...look('response', res)];
  const shown = [printed(req), printed(res)];
  res.onAborted(() => {});
  res.onData((chunk, isLast) => {
    found.push(...look('chunk', chunk), ...look('response with a body', res), ...look('address', res.getRemoteAddressAsText()));
    if (isLast) res.end(JSON.stringify({ found, printed: shown }));
  });
});
app.ws('/ws/*', {
  upgrade: (res, req, context) => res.upgrade({ found: [...look('handshake', req), ...look('context', context)] }, req.getHeader('sec-websocket-key'), req.getHeader('sec-websocket-protocol'), req.getHeader('sec-websocket-extensions'), context),
  open: (ws) => { ws.subscribe('topic'); },
  subscription: () => {},
  message: (ws, message) => {
    ws.send(JSON.stringify({ found: [...ws.found, ...look('socket', ws), ...look('message', message), ...look('address', ws.getRemoteAddress())], printed: [printed(ws)] }));
  },
});
app.listen('127.0.0.1', 0, (socket) => console.log('listening on', uWS.us_socket_local_port(socket), look('listen socket', socket).length));
`;

describe('a program of the uWebSockets.js API', () => {
  test('requests, responses, sockets and buffers lead to nothing of other clients', async () => {
    const { mkdtempSync, rmSync, symlinkSync, writeFileSync, mkdirSync } = await import('node:fs');
    const { tmpdir } = await import('node:os');
    const folder = mkdtempSync(join(tmpdir(), 'ringway-e2e-'));
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(join(import.meta.dir, '..', '..'), join(folder, 'node_modules', 'ringway'));
    writeFileSync(join(folder, 'looking.ts'), looking);
    writeFileSync(join(folder, 'program.ts'), program);
    const child = Bun.spawn([process.execPath, join(folder, 'program.ts')], { cwd: folder, stdout: 'pipe', stderr: 'inherit' });
    const others: Wire[] = [];
    try {
      let output = '';
      void (async () => {
        for await (const chunk of child.stdout) output += Buffer.from(chunk).toString();
      })();
      const port = Number((await eventually('the program listens', () => /listening on (\d+) 0/.exec(output)))[1]);
      for (const target of ['/wait', '/ws/a']) {
        const other = await Wire.connect(port);
        others.push(other);
        const head = target === '/wait' ? `GET ${target} HTTP/1.1\r\nHost: a\r\n\r\n` : handshake(target).toString();
        other.write(head.replace('\r\n\r\n', `\r\n${secretField}\r\n`));
        if (target === '/wait') continue;
        expect(await other.head()).toStartWith('HTTP/1.1 101');
        other.write(frame(opcode.text, 'other-client-secret '.repeat(200)));
        await other.frame();
      }
      const http = (await (await fetch(`http://127.0.0.1:${port}/look`, { method: 'POST', body: 'own' })).json()) as Report;
      expect(http.found).toEqual([]);
      expect(http.printed?.[1]).toContain('own: "mine"');
      const report = await reportOver(port, '/ws/a', 'hello');
      expect(report.found).toEqual([]);
    } finally {
      for (const other of others) other.destroy();
      child.kill('SIGKILL');
      await child.exited;
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
