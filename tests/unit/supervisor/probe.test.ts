import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { check } from '../../../src/cli/check.ts';
import { doctor } from '../../../src/cli/doctor.ts';
import type { ReadOptions } from '../../../src/cli/read-config.ts';
import { defaults } from '../../../src/config/defaults.ts';
import { readThrough } from '../../../src/supervisor/probe.ts';
import { ownRelease } from '../../../src/supervisor/release.ts';

const main = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-probe-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const never = () => new AbortController().signal;
function write(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}
const read = (text: string) => readThrough([main, '--read-config', write('gateway.config.ts', text)], undefined)(never());
/** A process that stands for the one that reads the config. */
const through = (program: string, timeoutMs?: number) => readThrough(['-e', program], timeoutMs);
async function isGone(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await Bun.sleep(5);
  }
}

describe('the process that reads the config', () => {
  test('tells what the supervisor acts on, and which release it is', async () => {
    const verdict = await read(`export default {
      fetch: () => new Response(), listen: [{ port: 81, host: '127.0.0.1' }, { unix: '/run/a.sock', backlog: 7 }], admin: false, workers: 3,
      drain: { timeout: 5 }, affinity: false, log: { level: 'warn' },
    };`);
    expect(verdict).toMatchObject({
      type: 'config',
      release: ownRelease,
      settings: { admin: false, workers: 3, drain: { ...defaults.drain, timeout: 5 }, affinity: false, logLevel: 'warn' },
    });
    expect(verdict.type === 'config' && verdict.settings.listen).toMatchObject([
      { kind: 'tcp', host: '127.0.0.1', port: 81, ipv6Only: false },
      { kind: 'unix', path: '/run/a.sock', backlog: 7 },
    ]);
  });

  test('tells every mistake, and what the config throws', async () => {
    const path = join(folder, 'gateway.config.ts');
    const wrong = await read('export default { workers: 0, listen: 70000, fetch: () => new Response() };');
    expect(wrong).toMatchObject({ type: 'mistakes', where: path });
    expect(wrong.type === 'mistakes' && wrong.mistakes.map((mistake) => mistake.split(':')[0])).toEqual(['listen', 'workers']);
    const thrown = await read("throw new Error('no database');");
    expect(thrown.type === 'mistakes' && thrown.mistakes[0]).toContain('no database');
  });

  test('sees modules as they are now', async () => {
    const config = "import { port } from './port.ts'; export default { fetch: () => new Response(), listen: port };";
    for (const port of [81, 82]) {
      write('port.ts', `export const port = ${port};`);
      const verdict = await read(config);
      expect(verdict.type === 'config' && verdict.settings.listen).toMatchObject([{ port }]);
    }
  });

  test('is heard, and not what the config sends to its parent', async () => {
    const verdict = await read(
      "process.send?.({ type: 'hello' }); process.send?.('config'); export default { fetch: () => new Response() };",
    );
    expect(verdict.type).toBe('config');
  });

  test('is ended when it has spoken, whatever the config has begun', async () => {
    const pidFile = join(folder, 'pid');
    const begun = `require('node:fs').writeFileSync('${pidFile}', String(process.pid)); setInterval(() => {}, 1000); process.on('exit', () => { for (;;); });`;
    const verdict = await read(`${begun} export default { fetch: () => new Response() };`);
    expect(verdict.type).toBe('config');
    await isGone(Number(readFileSync(pidFile, 'utf8')));
  });

  test('that ends without a word, hangs, or is not wanted any more is a failure', async () => {
    expect(await through('process.exit(4)')(never())).toEqual({
      type: 'failed',
      reason: 'the config ended the process that reads it, with code 4: does it call process.exit, or does what it imports?',
    });
    expect(await through("process.kill(process.pid, 'SIGKILL')")(never())).toEqual({
      type: 'failed',
      reason: 'the process that reads the config ended by signal SIGKILL',
    });
    const hangs = 'setInterval(() => {}, 1000)';
    expect(await through(hangs, 50)(never())).toEqual({
      type: 'failed',
      reason: 'the config was not loaded after 0.05 s; does it wait for something (a top-level await)?',
    });
    const stop = new AbortController();
    const waiting = through(hangs)(stop.signal);
    stop.abort('the node is stopping');
    expect(await waiting).toEqual({ type: 'failed', reason: 'the node is stopping' });
    expect(await through(hangs)(AbortSignal.abort('the node is stopping'))).toEqual({ type: 'failed', reason: 'the node is stopping' });
  });
});

describe('a config that does not get loaded', () => {
  const checkOf = (text: string, options: ReadOptions = {}) => check(write('gateway.config.ts', text), options);

  test('is told of when it takes long, and refused in the end: by a top-level await, and by a loop', async () => {
    for (const text of ['await new Promise(() => {});', 'for (;;);']) {
      const told: string[] = [];
      const options = { slowMs: 100, timeoutMs: 1000, tell: (word: string) => void told.push(word) };
      await expect(checkOf(`${text} export default { fetch: () => new Response() };`, options)).rejects.toThrow(
        'the config was not loaded after 1 s; does it wait for something (a top-level await)?',
      );
      expect(told).toEqual(['the config is not loaded after 0.1 s; does it wait for something (a top-level await)?']);
    }
  });

  test('because it ends its process is refused, with what it wrote before', async () => {
    for (const code of [0, 3]) {
      await expect(checkOf(`process.exit(${code});`)).rejects.toThrow(
        `the config ended the process that reads it, with code ${code}: does it call process.exit, or does what it imports?`,
      );
    }
  });

  test('ends with the command that reads it', async () => {
    const path = write('gateway.config.ts', `await Bun.write('${folder}/pid', String(process.pid)); for (;;);`);
    const child = Bun.spawn([process.execPath, main, 'check', '-c', path], { stdio: ['ignore', 'ignore', 'ignore'] });
    const pid = async () =>
      Number(
        await Bun.file(join(folder, 'pid'))
          .text()
          .catch(() => ''),
      );
    while ((await pid()) === 0) await Bun.sleep(5);
    child.kill('SIGINT');
    await child.exited;
    expect(child.signalCode).toBe('SIGINT');
    await isGone(await pid());
  });

  test('does not keep the doctor from judging', async () => {
    const { text } = await doctor({ configPath: write('gateway.config.ts', 'process.exit(0);'), connections: 1000, json: true });
    expect(text).toContain('does it call process.exit');
    expect(JSON.parse(text).judgedFor.connections).toBe(1000);
  });
});
