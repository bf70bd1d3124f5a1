/**
 * A fourth frontend, which a config registers: served by a real worker, on the sockets and beside the frontends that are there, and nothing
 * in src/ knows of it.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { Wire } from '../support/wire.ts';

const root = join(import.meta.dir, '..', '..');
const source = join(root, 'tests', 'support', 'line-echo.ts');

const config = `
import { Hono } from 'hono';
import { defineGateway, upgradeWebSocket } from 'ringway';
import { registerFrontend } from ${JSON.stringify(join(root, 'src', 'frontend', 'registry.ts'))};
import { lineEcho } from ${JSON.stringify(source)};
registerFrontend(lineEcho('/lines'));
const app = new Hono();
app.get('/hono-ws', upgradeWebSocket(() => ({ onMessage: (event, socket) => socket.send('hono ' + event.data) })));
app.get('*', (c) => c.text('fetched'));
export default defineGateway({
  $OPTIONS,
  log: { requests: true },
  fetch: app,
  websocket: { '/echo': { message: (socket, message) => void socket.send('route ' + message.text()) } },
});
`;

test('a frontend takes less than 60 lines', () => {
  expect(readFileSync(source, 'utf8').trimEnd().split('\n').length).toBeLessThan(60);
});

forEachBackend('a frontend that a config registers', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend });
  });
  afterAll(() => gateway?.stop());

  const say = (wire: Wire, text: string) => wire.write(frame(opcode.text, Buffer.from(text)));
  const heard = async (wire: Wire) => (await wire.frame())?.payload.toString();

  test('is told of its WebSockets, and the others of theirs', async () => {
    const [lines, echo, hono] = await Promise.all(['/lines', '/echo', '/hono-ws'].map((path) => Wire.open(gateway.port, path)));
    if (lines === undefined || echo === undefined || hono === undefined) throw new Error('not all are open');
    for (const part of ['one\ntw', 'o', '\nthr']) say(lines, part);
    say(echo, 'x\n');
    say(hono, 'y');
    expect([await heard(lines), await heard(lines), await heard(echo), await heard(hono)]).toEqual(['one', 'two', 'route x\n', 'hono y']);
    say(lines, 'ee\n');
    expect(await heard(lines)).toBe('three');
    for (const wire of [lines, echo, hono]) wire.destroy();
  });

  test('takes the requests that it wants, and leaves the others', async () => {
    const texts = await Promise.all(['/lines', '/echo', '/other'].map(async (path) => (await fetch(gateway.url + path)).text()));
    expect(texts).toEqual([expect.stringMatching(/^\d+ lines$/), 'fetched', 'fetched']);
  });

  test('closes by its own rules, counted and logged as all are', async () => {
    const wire = await Wire.open(gateway.port, '/lines');
    say(wire, 'x'.repeat(5000));
    const last = await wire.frame();
    expect([last?.opcode, last?.payload.readUInt16BE(0), last?.payload.toString('utf8', 2)]).toEqual([
      opcode.close,
      1009,
      'the line is too long',
    ]);
    wire.destroy();
    const line = '"msg":"WebSocket /lines closed with';
    for (const end = Date.now() + 30_000; !gateway.output().includes(line) && Date.now() < end; ) await Bun.sleep(20);
    expect(gateway.output()).toContain(line);
    expect(gateway.output()).toContain('"msg":"GET /lines 101"');
  });
});
