import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { frame, handshakeKey, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { acceptOf, Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = `
import { defineGateway } from 'ringway';
export default defineGateway({
  $OPTIONS,
  websocket: {
    '/echo': { message: (socket, message) => void socket.send(message) },
    '/copy': { message: (socket, message) => void socket.send(message.isBinary ? message.bytes() : message.text()) },
    '/async': { async message(socket, message) { await 0; socket.send(message); } },
    '/goodbye': { message: (socket, message) => socket.close(...message.json()) },
    '/protocols': { protocols: ['v2', 'v1'] },
  },
});
`;

const nodeMajor = Number(/\d+/.exec(Bun.spawnSync(['node', '--version']).stdout.toString())?.[0]);
if (nodeMajor < 20) console.warn(`the test with undici is skipped: it needs Node 20, and this is ${nodeMajor}`);

async function runUnderNode(client: string, url: string): Promise<Record<string, unknown>> {
  const child = Bun.spawn(['node', join(import.meta.dir, 'node-clients.mjs'), client, url], { stdout: 'pipe', stderr: 'pipe' });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`${client} ended with ${code}: ${err}`);
  return JSON.parse(out) as Record<string, unknown>;
}

forEachBackend('clients that are not ours', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
  });
  afterAll(() => gateway?.stop());

  for (const client of ['ws', 'undici']) {
    test.skipIf(client === 'undici' && nodeMajor < 20)(
      `${client}: every length of text and binary comes back, in order, and both sides may close`,
      async () => {
        const result = await runUnderNode(client, gateway.wsUrl);
        expect(result).toMatchObject({
          wrong: [],
          inOrder: true,
          closes: {
            mine: { code: 3001, reason: '', wasClean: true },
            bare: { code: 1005, reason: '', wasClean: true },
            theirs: { code: 4001, reason: 'see you', wasClean: true },
            silent: { code: 1005, reason: '', wasClean: true },
          },
          protocol: 'v2',
        });
        if (client === 'ws') expect(result).toMatchObject({ pong: 'are you there', fragments: 'one two three' });
      },
      30_000,
    );
  }

  test("Bun's client: forwarded, copied and awaited messages come back as they were", async () => {
    for (const path of ['/echo', '/copy', '/async']) {
      const socket = new WebSocket(gateway.wsUrl + path);
      socket.binaryType = 'arraybuffer';
      await new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = reject;
      });
      const echo = (data: string | Uint8Array) =>
        new Promise<unknown>((resolve) => {
          socket.onmessage = (event) => resolve(event.data);
          socket.send(data);
        });
      for (const length of [0, 1, 125, 126, 65535, 65536, 300_000, 1024 * 1024]) {
        const text = 'q'.repeat(length);
        expect((await echo(text)) === text).toBe(true);
        const bytes = new Uint8Array(length).fill(length & 255);
        expect(Buffer.compare(Buffer.from((await echo(bytes)) as ArrayBuffer), Buffer.from(bytes))).toBe(0);
      }
      socket.close();
    }
  });

  describe('on the wire', () => {
    test('a message is the same whether it comes whole, in pieces of any size, or in fragments with pings between', async () => {
      const text = 'π≈3.14159 🎉 end';
      const bytes = Buffer.from(text);
      const wire = await Wire.open(gateway.port, '/echo');
      for (let cut = 1; cut < bytes.length; cut++) {
        const [a, b] = [bytes.subarray(0, cut), bytes.subarray(cut)];
        const fragments = [
          frame(opcode.text, a, { fin: false }),
          frame(opcode.ping, `p${cut}`),
          frame(opcode.continuation, '', { fin: false }),
          frame(opcode.pong, 'nobody asked'),
          frame(opcode.continuation, b),
        ];
        await wire.writeAll(Buffer.concat(fragments));
        expect(await wire.frame()).toEqual({ fin: true, opcode: opcode.pong, payload: Buffer.from(`p${cut}`) });
        expect(await wire.frame()).toEqual({ fin: true, opcode: opcode.text, payload: bytes });
      }
      const whole = frame(opcode.text, bytes);
      for (let cut = 1; cut < whole.length; cut++) {
        await wire.writeAll(whole.subarray(0, cut));
        await new Promise((resolve) => setImmediate(resolve));
        await wire.writeAll(whole.subarray(cut));
        expect(String((await wire.frame())?.payload)).toBe(text);
      }
      wire.destroy();
    });

    test('answers carry the shortest length form and are never masked', async () => {
      const wire = await Wire.open(gateway.port, '/echo');
      for (const length of [0, 125, 126, 65535, 65536]) {
        wire.write(frame(opcode.binary, new Uint8Array(length)));
        // Wire itself throws for longer forms and for masks.
        expect((await wire.frame())?.payload.length).toBe(length);
      }
      wire.destroy();
    });

    test('a client that ends its side without a close frame is heard as gone', async () => {
      const before = await gateway.metric('ringway_connections_closed_total');
      const wire = await Wire.open(gateway.port, '/echo');
      wire.socket.end();
      expect(await wire.closeCode()).toBe(1006);
      await eventually('its slot is given back', async () => (await gateway.metric('ringway_connections_closed_total')) > before);
    });

    test('the sample of RFC 6455 §1.3 has the answer that it must have', () => {
      expect(acceptOf(handshakeKey)).toBe('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
    });
  });
});
