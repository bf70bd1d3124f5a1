import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readThrough } from '../../src/supervisor/probe.ts';
import { ownRelease } from '../../src/supervisor/release.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

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
      settings: { admin: false, workers: 3, drain: { timeout: 5 }, affinity: false, logLevel: 'warn' },
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
      reason: 'the process that reads the config ended with code 4',
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
    stop.abort();
    expect(await waiting).toEqual({ type: 'failed', reason: 'the node is stopping' });
    expect(await through(hangs)(AbortSignal.abort())).toEqual({ type: 'failed', reason: 'the node is stopping' });
  });
});
