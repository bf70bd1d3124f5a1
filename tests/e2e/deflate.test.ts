import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { type Browser, chromium } from 'playwright-core';
import { frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const isInstalled = existsSync(executablePath);
if (!isInstalled)
  console.warn(`the test with a browser is skipped: ${executablePath} is not installed (apt-get install chromium, or set CHROMIUM)`);

const config = `
import { defineGateway } from 'ringway';
const echo = { maxPayloadBytes: 2_000_000, message: (socket, message) => void socket.send(message) };
export default defineGateway({
  $OPTIONS,
  fetch: () => new Response('<title>a page</title>', { headers: { 'content-type': 'text/html' } }),
  websocket: {
    '/shared': { ...echo, compression: true },
    '/all': { ...echo, compression: { minBytes: 0 } },
    '/dedicated': { ...echo, compression: { window: 'dedicated', windowBits: 15 } },
    '/plain': echo,
    '/room': {
      compression: true,
      open: (socket) => socket.subscribe('room'),
      message: (socket, message) => { socket.publish('room', message); socket.send(message); },
    },
  },
});
`;

interface Seen {
  readonly extensions: string;
  readonly wrong: readonly number[];
  readonly plain: number;
  readonly first: number;
  readonly again: number;
}
type Offers = Readonly<Record<'usual' | 'none' | 'noTakeover' | 'small', Seen>>;
interface Results {
  readonly '/shared': Offers;
  readonly '/dedicated': Offers;
  readonly '/plain': Offers;
  readonly room: readonly number[];
  readonly bomb: number;
}

async function underNode(url: string): Promise<Results> {
  const child = Bun.spawn(['node', join(import.meta.dir, 'deflate-client.mjs'), url], { stdout: 'pipe', stderr: 'pipe' });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`it ended with ${code}: ${err}`);
  return JSON.parse(out) as Results;
}

/** RSV1, as `FrameOptions.rsv` has it: a compressed message (RFC 7692 §6). */
const compressed = { rsv: 4 };
/** RFC 7692 §7.2.1: without the four octets that a flush ends with. */
const deflated = (text: string) => deflateRawSync(text, { finishFlush: 2 }).subarray(0, -4);
const inflated = (bytes: Uint8Array) =>
  inflateRawSync(Buffer.concat([bytes, Buffer.from([0, 0, 0xff, 0xff])]), { finishFlush: 2 }).toString();

forEachBackend('permessage-deflate', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
  });
  afterAll(() => gateway?.stop());

  test('ws under Node: whatever it offers, messages come back as they were, and smaller where that was agreed on', async () => {
    const seen = await underNode(gateway.wsUrl);
    for (const path of ['/shared', '/dedicated', '/plain'] as const) {
      for (const offer of ['usual', 'none', 'noTakeover', 'small'] as const) {
        const { extensions, wrong, plain, first } = seen[path][offer];
        const agreed = path !== '/plain' && offer !== 'none';
        expect([path, offer, wrong, extensions !== '', first < plain / 4]).toEqual([path, offer, [], agreed, agreed]);
      }
    }
    // What has passed before is in the window.
    expect(seen['/dedicated'].usual.again).toBeLessThan(seen['/dedicated'].usual.first / 2);
    expect(seen['/shared'].usual.again).toBe(seen['/shared'].usual.first);
    // RFC 7692 §7.1: nothing is answered that was not offered.
    for (const path of ['/shared', '/dedicated'] as const)
      expect([path, seen[path].usual.extensions]).toEqual([path, 'permessage-deflate']);
    expect(seen.room).toEqual([5000, 5000, 5000]);
    // RFC 6455 §7.4.1: too big to be processed
    expect(seen.bomb).toBe(1009);
  });

  test('a client that offers nothing, or what is not known, gets no extension', async () => {
    for (const offer of ['', 'x-webkit-deflate-frame', 'permessage-deflate; server_max_window_bits=7', 'permessage-deflate; unknown']) {
      const wire = await Wire.open(gateway.port, '/shared', offer === '' ? {} : { 'Sec-WebSocket-Extensions': offer });
      expect([offer, wire.answer.toLowerCase().includes('sec-websocket-extensions')]).toEqual([offer, false]);
      wire.destroy();
    }
  });

  test('messages below minBytes go out as they are, also when they came compressed', async () => {
    const wire = await Wire.open(gateway.port, '/shared', { 'Sec-WebSocket-Extensions': 'permessage-deflate' });
    wire.write(frame(opcode.text, deflated('small'), compressed));
    const small = await wire.frame();
    expect([small?.compressed, String(small?.payload)]).toEqual([undefined, 'small']);
    const long = 'long enough '.repeat(100);
    wire.write(frame(opcode.text, deflated(long), compressed));
    const large = await wire.frame();
    expect([large?.compressed, inflated(large?.payload as Uint8Array)]).toEqual([true, long]);
    wire.destroy();
    const all = await Wire.open(gateway.port, '/all', { 'Sec-WebSocket-Extensions': 'permessage-deflate' });
    all.write(frame(opcode.text, 'uncompressed'));
    const back = await all.frame();
    expect([back?.compressed, inflated(back?.payload as Uint8Array)]).toEqual([true, 'uncompressed']);
    all.destroy();
  });

  test('a published message is compressed once for all who share a window, and not for the others', async () => {
    const offer = { 'Sec-WebSocket-Extensions': 'permessage-deflate' };
    const members = await Promise.all(Array.from({ length: 12 }, (_, i) => Wire.open(gateway.port, '/room', i < 10 ? offer : {})));
    const before = await gateway.metric('ringway_websocket_compressions_total');
    const said = 'said to all '.repeat(200);
    (members[11] as Wire).write(frame(opcode.text, said));
    const heard = await Promise.all(members.map((wire) => wire.frame()));
    expect(heard.map((each) => each?.compressed === true)).toEqual([...new Array(10).fill(true), false, false]);
    expect(heard.slice(0, 10).map((each) => inflated(each?.payload as Uint8Array) === said)).toEqual(new Array(10).fill(true));
    expect(heard.slice(10).map((each) => String(each?.payload) === said)).toEqual([true, true]);
    expect(await gateway.metric('ringway_websocket_compressions_total')).toBe(before + 1);
    for (const wire of members) wire.destroy();
  });

  test('compressed nonsense closes with 1007, a compressed control frame and one without agreement with 1002', async () => {
    const closeOf = async (wire: Wire) => {
      const close = await wire.frame();
      wire.destroy();
      return [close?.opcode, close?.payload.readUInt16BE(), close?.payload.subarray(2).toString()];
    };
    const agreed = () => Wire.open(gateway.port, '/shared', { 'Sec-WebSocket-Extensions': 'permessage-deflate' });
    const nonsense = await agreed();
    nonsense.write(frame(opcode.text, Buffer.alloc(64, 0xff), compressed));
    expect(await closeOf(nonsense)).toEqual([opcode.close, 1007, 'a compressed message that does not inflate']);
    const control = await agreed();
    control.write(frame(opcode.ping, deflated('ping'), compressed));
    expect(await closeOf(control)).toEqual([opcode.close, 1002, '']);
    const unasked = await Wire.open(gateway.port, '/shared');
    unasked.write(frame(opcode.text, deflated('text'), compressed));
    expect(await closeOf(unasked)).toEqual([opcode.close, 1002, '']);
    expect(await gateway.metric('ringway_websocket_invalid_compression_total')).toBe(1);
  });
});

describe.skipIf(!isInstalled)('a browser', () => {
  let browser: Browser;
  let gateway: Gateway;
  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath,
      args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
    });
    gateway = await startGateway({ config, backend: 'epoll' });
  });
  afterAll(async () => {
    await browser?.close();
    await gateway?.stop();
  });

  for (const path of ['/shared', '/dedicated']) {
    test(`${path}: it agrees on compression, and messages come back as they were`, async () => {
      const page = await browser.newPage();
      await page.goto(gateway.url);
      const seen = await page.evaluate(
        // In the page, whose WebSocket is not Bun's.
        `new Promise((resolve, reject) => {
          const socket = new WebSocket('${gateway.wsUrl}${path}');
          const texts = [10, 2000, 100_000, 1_000_000, 2000].map((length) => 'what comes again '.repeat(length / 10).slice(0, length));
          const wrong = [];
          let at = 0;
          socket.onopen = () => socket.send(texts[0]);
          socket.onmessage = ({ data }) => {
            if (data !== texts[at]) wrong.push(at);
            if (++at < texts.length) socket.send(texts[at]);
            else resolve({ extensions: socket.extensions, wrong });
          };
          socket.onclose = ({ code }) => reject(new Error('closed with ' + code));
        })`,
      );
      expect(seen).toMatchObject({ wrong: [] });
      expect((seen as { extensions: string }).extensions).toContain('permessage-deflate');
      await page.close();
    });
  }
});
