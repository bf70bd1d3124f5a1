/** permessage-deflate with clients that keep to what they have offered, and to nothing that they are told besides. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { eventually } from '../support/eventually.ts';
import { frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

/** As long as a registry may take. */
const installMs = 90_000;
const tornado = 'tornado==6.5.2';

function installTornado(folder: string): string | undefined {
  const run = (...command: string[]) => Bun.spawnSync(command, { stdout: 'ignore', stderr: 'ignore', timeout: installMs }).exitCode === 0;
  const python = join(folder, 'bin/python');
  if (Bun.which('python3') === null || !run('python3', '-m', 'venv', folder)) return undefined;
  return run(python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', tornado) ? python : undefined;
}

const folder = mkdtempSync(join(tmpdir(), 'ringway-tornado-'));
const python = installTornado(folder);
if (python === undefined) console.warn(`the test with Tornado is skipped: python3 with venv cannot install ${tornado}`);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Two windows of 39 KiB, which are more than seven eighths of it, and not three. */
const budget = 88 * 1024;

const config = `
import { defineGateway } from 'ringway';
const echo = { maxPayloadBytes: 2_000_000, message: (socket, message) => void socket.send(message) };
export default defineGateway({
  $OPTIONS,
  limits: { maxInflateBytes: ${budget} },
  websocket: {
    '/shared': { ...echo, compression: true },
    '/small': { ...echo, compression: { window: 'dedicated', windowBits: 10 } },
    '/large': { ...echo, compression: { window: 'dedicated', windowBits: 15 } },
  },
});
`;

const offer = { 'Sec-WebSocket-Extensions': 'permessage-deflate' };
const compressed = { rsv: 4 };
/** RFC 7692 §7.2.1: without the four octets that a flush ends with. */
const deflated = (text: string, dictionary?: string) =>
  deflateRawSync(text, { finishFlush: 2, ...(dictionary === undefined ? {} : { dictionary: Buffer.from(dictionary) }) }).subarray(0, -4);

forEachBackend('permessage-deflate with context takeover', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
  });
  afterAll(() => gateway?.stop());

  test.skipIf(python === undefined)('Tornado is understood on every route, though it offers nothing but compression', async () => {
    for (const path of ['/shared', '/small', '/large']) {
      const child = Bun.spawn([python as string, join(import.meta.dir, 'deflate-client.py'), `${gateway.wsUrl}${path}`], {
        stdout: 'pipe',
        stderr: 'pipe',
      });
      const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
      expect([path, code, code === 0 ? '' : err]).toEqual([path, 0, '']);
      expect(JSON.parse(out)).toMatchObject({ wrong: [], close: [null, null] });
    }
  });

  test('the answer has no more than was offered, and a message may refer to the one before', async () => {
    for (const path of ['/shared', '/small', '/large']) {
      const wire = await Wire.open(gateway.port, path, offer);
      expect(/sec-websocket-extensions: (.*)\r\n/i.exec(wire.answer)?.[1]).toBe('permessage-deflate');
      wire.write(frame(opcode.text, deflated('the first message'), compressed));
      expect((await wire.frame())?.payload.toString()).toBe('the first message');
      const again = deflated('the first message, again', 'the first message');
      expect(again.byteLength).toBeLessThan(deflated('the first message, again').byteLength);
      wire.write(frame(opcode.text, again, compressed));
      expect((await wire.frame())?.payload.toString()).toBe('the first message, again');
      wire.destroy();
    }
  });

  test('past its budget a window is refused with 1013 and a reason, and then no longer agreed to', async () => {
    const held = () => gateway.metric('ringway_inflate_bytes');
    const refused = (kind: string) => gateway.metric('ringway_inflate_refused_total', { kind });
    await eventually('no window is held', async () => (await held()) === 0);
    expect([await gateway.metric('ringway_inflate_limit_bytes'), await refused('message'), await refused('handshake')]).toEqual([
      budget,
      0,
      0,
    ]);
    const wires = await Promise.all([1, 2, 3].map(() => Wire.open(gateway.port, '/shared', offer)));
    for (const wire of wires.slice(0, 2)) {
      wire.write(frame(opcode.text, deflated('hello'), compressed));
      expect((await wire.frame())?.payload.toString()).toBe('hello');
    }
    wires[2]?.write(frame(opcode.text, deflated('hello'), compressed));
    const close = await wires[2]?.frame();
    expect([close?.opcode, close?.payload.readUInt16BE(), close?.payload.subarray(2).toString()]).toEqual([
      opcode.close,
      1013,
      'no memory is left for compressed messages, try again later',
    ]);
    const plain = await Wire.open(gateway.port, '/shared', offer);
    expect(plain.answer.toLowerCase()).not.toContain('sec-websocket-extensions');
    plain.write(frame(opcode.text, Buffer.from('as it is')));
    expect((await plain.frame())?.payload.toString()).toBe('as it is');
    expect([await refused('message'), await refused('handshake')]).toEqual([1, 1]);
    for (const wire of [...wires, plain]) wire.destroy();
    await eventually('the windows are given back', async () => (await held()) === 0);
    expect((await Wire.open(gateway.port, '/shared', offer)).answer.toLowerCase()).toContain('sec-websocket-extensions');
  });
});
