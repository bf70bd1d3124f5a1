/**
 * Bad input to a program of the uWebSockets.js API, plainly and over TLS: each piece of it costs its sender, no handler sees it, and the
 * process holds nothing of it afterwards. What a gateway makes of the same is in the http and websocket suites.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { deflateRawSync } from 'node:zlib';
import { type Authority, createAuthority } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, handshake, opcode } from '../support/frames.mjs';
import { forEachBackend } from '../support/gateway.ts';
import { type HttpVector, readVectors } from '../support/http-vectors.ts';
import { residentBytes } from '../support/process-state.ts';
import { parseAll, RawClient } from '../support/raw-client.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

interface State {
  readonly calls: readonly string[];
  readonly closes: readonly number[];
  readonly balance: { readonly open: number; readonly close: number; readonly aborted: number };
  readonly errors: number;
  readonly held: Readonly<Record<string, number>>;
}

let authority: Authority;
let files: { readonly cert: string; readonly key: string };
beforeAll(() => {
  authority = createAuthority();
  files = authority.filesOf(authority.issue('localhost', 'DNS:localhost'));
});
afterAll(() => authority?.dispose());

/** Takes plain bytes and speaks TLS to `port`, so that the same clients do for both. A reset on one side is one on the other. */
async function tunnelTo(port: number): Promise<{ readonly port: number; readonly server: Server }> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (plain) => {
    const secure = connectTls({ port, host: '127.0.0.1', servername: 'localhost', ca: authority.cert });
    plain.on('data', (data) => secure.write(data));
    secure.on('data', (data) => plain.write(data));
    plain.on('end', () => secure.end());
    secure.on('end', () => plain.end());
    plain.on('error', () => secure.destroy());
    secure.on('error', () => plain.resetAndDestroy());
    plain.on('close', () => secure.destroy());
    secure.on('close', () => plain.end());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { port: (server.address() as { port: number }).port, server };
}

const get = (target: string, more = '') => `GET ${target} HTTP/1.1\r\nHost: a\r\n${more}\r\n`;
const isRefused = ({ result }: HttpVector) => /^\d+$/.test(result);
const follower = Buffer.from(get('/smuggled'));
const chunkedHead = Buffer.from('POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
/** RSV1: a compressed message (RFC 7692 §6). */
const compressed = (payload: Uint8Array) => frame(opcode.binary, payload, { rsv: 4 });
/** RFC 7692 §7.2.1: without the four bytes at its end. */
const deflated = (bytes: Uint8Array) => deflateRawSync(bytes, { finishFlush: 2 }).subarray(0, -4);

const slowClients = 20;
const atOnce = 16;

forEachBackend('a program for uWebSockets.js', (backend) => {
  let child: Bun.Subprocess<'ignore', 'pipe', 'pipe'>;
  let said = '';
  let plainPort: number;
  let tunnel: Awaited<ReturnType<typeof tunnelTo>>;
  /** They send a byte of their heads now and then. */
  const slow: RawClient[] = [];

  beforeAll(async () => {
    child = Bun.spawn([process.execPath, join(import.meta.dir, 'uws-faults-program.ts'), backend, files.cert, files.key], {
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
    });
    void (async () => {
      const decoder = new TextDecoder();
      for await (const chunk of child.stderr) said += decoder.decode(chunk, { stream: true });
    })();
    const { value } = await child.stdout.getReader().read();
    const [plain, secure] = JSON.parse(Buffer.from(value ?? []).toString()) as [number, number];
    plainPort = plain;
    tunnel = await tunnelTo(secure);
    for (let index = 0; index < slowClients; index++) {
      const client = await RawClient.connect({ port: index % 2 === 0 ? plain : tunnel.port });
      client.write('GET /slow HTTP/1.1\r\nHos');
      slow.push(client);
    }
  });
  afterAll(async () => {
    for (const client of slow) client.destroy();
    tunnel?.server.close();
    child?.kill('SIGKILL');
    await child?.exited;
  });

  const state = async () => (await (await fetch(`http://127.0.0.1:${plainPort}/state`)).json()) as State;

  for (const transport of ['plain', 'TLS'] as const) {
    describe(`over ${transport}`, () => {
      const port = () => (transport === 'TLS' ? tunnel.port : plainPort);
      const connect = () => RawClient.connect({ port: port() });
      const isWell = async () => {
        const client = await connect();
        expect((await client.exchange(get('/well'))).text).toBe('well');
        client.destroy();
      };

      /** ret: the status of every response until the connection is closed */
      async function statuses(...parts: readonly Uint8Array[]): Promise<number[]> {
        const client = await connect();
        client.write(Buffer.concat(parts));
        return parseAll(await client.closed()).map(({ status }) => status);
      }

      /** Try every refused vector of a page, several at once. ret: how many */
      async function each(page: string, attempt: (vector: HttpVector) => Promise<unknown>): Promise<number> {
        const vectors = readVectors(page).filter(isRefused);
        expect(vectors.length).toBeGreaterThan(20);
        const wrong: string[] = [];
        for (let at = 0; at < vectors.length; at += atOnce) {
          const batch = vectors.slice(at, at + atOnce);
          await Promise.all(batch.map((vector) => attempt(vector).catch((error: unknown) => wrong.push(`${vector.title}: ${error}`))));
        }
        expect(wrong).toEqual([]);
        return vectors.length;
      }

      for (const page of ['smuggling.md', 'malformed.md']) {
        test(`every head of ${page} is refused before a handler sees it, first and behind a good one`, async () => {
          await state();
          const first = Buffer.from(get('/well'));
          await each(page, async ({ bytes, result }) => {
            expect(await statuses(bytes, follower)).toEqual([Number(result)]);
            expect(await statuses(first, bytes, follower)).toEqual([200, Number(result)]);
          });
          expect((await state()).calls).toEqual([]);
        });
      }

      test('every bad chunked body is refused; its handler is told of the abort, and nobody of what follows', async () => {
        const { balance } = await state();
        const count = await each('chunked.md', async ({ bytes, result }) =>
          expect(await statuses(chunkedHead, bytes, follower)).toEqual([Number(result)]),
        );
        const after = await state();
        expect(after.calls).toEqual(Array.from({ length: count }, () => 'POST /chunked'));
        expect(after.balance.aborted - balance.aborted).toBe(count);
      });

      test('floods in the head, and what is no HTTP, are refused and cost nobody else anything', async () => {
        await state();
        const floods: readonly (readonly [bytes: string, allowed: readonly number[]])[] = [
          [`GET / HTTP/1.1\r\nHost: a\r\n${'A: b\r\n'.repeat(10_000)}\r\n`, [431]],
          [`GET / HTTP/1.1\r\nHost: a\r\n${'n'.repeat(100_000)}: b\r\n\r\n`, [431]],
          [`GET /${'t'.repeat(100_000)} HTTP/1.1\r\nHost: a\r\n\r\n`, [414]],
          [`${'G'.repeat(100_000)} / HTTP/1.1\r\n\r\n`, [400, 414]],
          ['\r\n'.repeat(50_000), [400]],
          ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', [400, 505]],
          ['\0'.repeat(4096), [400]],
          ['\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', [400]],
        ];
        for (const [bytes, allowed] of floods) {
          const found = await statuses(Buffer.from(bytes, 'latin1'));
          // The rest of a flood may meet a socket that is closed, and then the reset outruns the answer.
          expect(found.length).toBeLessThanOrEqual(1);
          for (const status of found) expect(allowed).toContain(status);
        }
        await isWell();
        expect((await state()).calls).toEqual([]);
      });

      test('a WebSocket that breaks the protocol is closed with the code of the RFC, whatever comes behind', async () => {
        const violations: readonly (readonly [what: string, code: number, pieces: readonly Uint8Array[]])[] = [
          ['not masked', 1002, [frame(opcode.text, 'x', { masked: false })]],
          ['continuation of nothing', 1002, [frame(opcode.continuation, 'x')]],
          ['text inside a message', 1002, [frame(opcode.text, 'a', { fin: false }), frame(opcode.text, 'b')]],
          ['a length with the highest bit set', 1002, [frame(opcode.binary, '', { claim: 2n ** 63n, lengthBytes: 8 })]],
          ['a length that is not minimal', 1002, [frame(opcode.text, 'x', { lengthBytes: 2 })]],
          ['a ping in fragments', 1002, [frame(opcode.ping, 'x', { fin: false })]],
          ['a ping of 126 bytes', 1002, [frame(opcode.ping, 'x'.repeat(126))]],
          ['reserved bits', 1002, [frame(opcode.text, 'x', { rsv: 2 })]],
          ['compressed, but not negotiated', 1002, [compressed(deflated(Buffer.from('x')))]],
          ['a reserved opcode', 1002, [frame(11, 'x')]],
          ['a close of one byte', 1002, [frame(opcode.close, 'x')]],
          ['a close with 1005', 1002, [frame(opcode.close, closePayload(1005))]],
          ['a text that is not UTF-8', 1007, [frame(opcode.text, Buffer.from([0x61, 0xff]))]],
          ['a text that ends within a character', 1007, [frame(opcode.text, Buffer.from([0xe2, 0x82]))]],
          ['a message that claims too much', 1009, [frame(opcode.binary, '', { claim: 2n ** 40n, lengthBytes: 8 })]],
          ['fragments that are too long together', 1009, [frame(opcode.binary, new Uint8Array(99_999), { fin: false }), frame(0, 'xx')]],
          ['HTTP', 1002, [follower]],
        ];
        const { balance } = await state();
        for (const [what, code, pieces] of violations) {
          const wire = await Wire.open(port(), '/ws');
          wire.write(Buffer.concat([...pieces, frame(opcode.text, 'behind')]));
          expect([what, await wire.closeCode()]).toEqual([what, code]);
          await wire.untilEnded();
          wire.destroy();
        }
        // To the program they are as from the original: closed without a close frame.
        const closed = await eventually('all are closed', async () => {
          const now = await state();
          return now.balance.close === now.balance.open ? now : undefined;
        });
        expect(closed.balance.open - balance.open).toBe(violations.length);
      });

      test('a bomb closes with 1009, and what does not inflate with 1007; neither takes memory', async () => {
        const extensions = { 'Sec-WebSocket-Extensions': 'permessage-deflate' };
        const exchange = async (bytes: Uint8Array): Promise<number> => {
          const wire = await Wire.open(port(), '/ws', extensions);
          expect(wire.answer.toLowerCase()).toContain('permessage-deflate');
          wire.write(bytes);
          const code = await wire.closeCode();
          wire.destroy();
          return code;
        };
        // 64 MB in 64 KB, and one byte more than is allowed.
        const bombs = [deflated(new Uint8Array(64 << 20)), deflated(new Uint8Array(100_001))];
        expect(bombs[0]?.length).toBeLessThan(100_000);
        const before = residentBytes(child.pid);
        for (let round = 0; round < 10; round++) for (const bomb of bombs) expect(await exchange(compressed(bomb))).toBe(1009);
        const halves = [bombs[0]?.subarray(0, 1000) as Uint8Array, bombs[0]?.subarray(1000) as Uint8Array];
        const pieces = [frame(opcode.binary, halves[0], { rsv: 4, fin: false }), frame(opcode.continuation, halves[1])];
        expect(await exchange(Buffer.concat(pieces))).toBe(1009);
        for (const junk of [Buffer.from([0xff, 0xff, 0xff]), Buffer.alloc(5000, 0x07)]) expect(await exchange(compressed(junk))).toBe(1007);
        expect(residentBytes(child.pid) - before).toBeLessThan(32 * 1024 * 1024);
        const wire = await Wire.open(port(), '/ws', extensions);
        wire.write(compressed(deflated(new Uint8Array(100_000))));
        const answer = await wire.frame();
        expect([answer?.opcode, answer?.compressed]).toEqual([opcode.binary, true]);
        wire.destroy();
      });

      test('a handler that fails is answered with 500, or 1011, and said with its stack', async () => {
        const { errors } = await state();
        const before = said.length;
        for (const path of ['/throws', '/rejects', '/silent']) {
          const client = await connect();
          expect((await client.exchange(get(path))).status).toBe(500);
          expect((await client.exchange(get('/well'))).text).toBe('well');
          client.destroy();
        }
        const body = await connect();
        body.write('POST /body-throws HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody');
        expect((await body.response()).status).toBe(500);
        body.destroy();
        const begun = await connect();
        begun.write(get('/breaks'));
        // The last chunk must not come: the client is to see that it is not all.
        expect((await begun.closed()).toString()).not.toContain('0\r\n\r\n');
        const leaving = await connect();
        leaving.write(get('/abort-throws'));
        await eventually('the request is there', async () => (await state()).held.connections_http);
        leaving.destroy();
        for (const path of ['/upgrade-throws', '/upgrade-rejects']) {
          const client = await connect();
          expect((await client.exchange(handshake(path))).status).toBe(500);
          client.destroy();
        }
        for (const path of ['/open-throws', '/message-throws', '/message-rejects']) {
          const wire = await Wire.open(port(), path);
          wire.write(frame(opcode.text, 'x'));
          expect([path, await wire.closeCode()]).toEqual([path, 1011]);
          wire.destroy();
        }
        const closing = await Wire.open(port(), '/close-throws');
        closing.write(frame(opcode.close, closePayload(1000)));
        expect(await closing.closeCode()).toBe(1000);
        closing.destroy();
        const failures = ['a route', 'an async route', 'a response that has begun', 'onData', 'onAborted', 'upgrade', 'an async upgrade'];
        const inSockets = ['open', 'message', 'an async message', 'close'];
        for (const where of [...failures, ...inSockets])
          await eventually(`${where} is said`, () => said.slice(before).includes(`Error: on purpose in ${where}\n`));
        expect(said.slice(before)).toContain('Returning from a request handler without responding');
        expect(said.slice(before)).toContain('uws-faults-program.ts:');
        expect((await state()).errors - errors).toBe(failures.length + inSockets.length + 1);
        await isWell();
      });

      test('a client that closes its sending side has left: what is not answered then is aborted at once', async () => {
        const { balance } = await state();
        const client = await connect();
        client.write(get('/well') + get('/in-a-while'));
        client.end();
        expect(parseAll(await client.closed()).map(({ text }) => text)).toEqual(['well']);
        expect((await state()).balance.aborted - balance.aborted).toBe(1);
      });

      test('clients that are reset at any moment leave nothing behind', async () => {
        for (let round = 0; round < 40; round++) {
          const wire = await Wire.connect(port());
          wire.write(handshake('/ws', { 'Sec-WebSocket-Extensions': 'permessage-deflate' }));
          if (round % 2 === 0) await wire.head();
          wire.write(frame(opcode.text, 'x'.repeat(round * 500), round % 3 === 0 ? { fin: false } : {}));
          if (round % 4 === 0) await Bun.sleep(0);
          wire.reset();
          const client = await connect();
          client.write(`POST /left HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n${'b'.repeat(round * 2000)}`);
          client.socket.resetAndDestroy();
        }
        await isWell();
      });
    });
  }

  test('heads that do not end are answered with 408, and others are served all the while', async () => {
    for (const client of slow) {
      client.write('t');
      expect(parseAll(await client.closed()).map(({ status }) => status)).toEqual([408]);
    }
    const client = await RawClient.connect({ port: plainPort });
    expect((await client.exchange(get('/well'))).text).toBe('well');
    client.destroy();
  });

  test('in the end every socket that has opened has closed, and nothing is held', async () => {
    const nothing = { connections_websocket: 0, topics: 0, subscriptions: 0, backpressure_bytes: 0, buffers_large_used: 0 };
    await eventually('the last one is gone', async () => {
      const { held, balance } = await state();
      // The one that asks.
      return balance.open === balance.close && JSON.stringify(held) === JSON.stringify({ ...held, connections_http: 1, ...nothing });
    });
    expect(child.exitCode).toBeNull();
  });
});
