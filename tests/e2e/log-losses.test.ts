/**
 * A log that cannot be written costs lines, and nothing else: no request, no worker, no stop.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const root = join(import.meta.dir, '..', '..');
const config = `
import { defineGateway } from 'ringway';
export default defineGateway({
  listen: { unix: './http' }, admin: { unix: './admin' }, workers: 1, affinity: false,
  log: { requests: true }, drain: { timeout: 5 },
  fetch(request) {
    const { pathname } = new URL(request.url);
    if (pathname === '/throw') throw new Error('a handler that fails');
    console.log('x'.repeat(1000));
    console.error('y'.repeat(1000));
    return new Response('ok');
  },
});
`;

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function start(output: (folder: string) => number) {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-log-'));
  cleanUps.push(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'gateway.config.ts'), config);
  const fd = output(folder);
  const child = Bun.spawn([process.execPath, join(root, 'src/main.ts'), 'start', '-c', join(folder, 'gateway.config.ts')], {
    cwd: folder,
    stdio: ['ignore', fd, fd],
  });
  cleanUps.push(async () => {
    child.kill('SIGKILL');
    await child.exited;
  });
  const get = (socket: string, path: string) => fetch(`http://localhost${path}`, { unix: join(folder, socket) });
  await eventually('the node is ready', () =>
    get('admin', '/readyz').then(
      ({ ok }) => ok,
      () => false,
    ),
  );
  const workers = async () => ((await (await get('admin', '/healthz')).json()) as { workers: { pid: number; restarts: number }[] }).workers;
  const metric = async (name: string) =>
    Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(await (await get('admin', '/metrics')).text())?.[1]);
  return { child, get, workers, metric };
}

/** A pipe that holds what is written to it; nobody reads it unless the test does. */
function unreadPipe(folder: string): number {
  const path = join(folder, 'log');
  Bun.spawnSync(['mkfifo', path]);
  const fd = openSync(path, constants.O_RDWR);
  cleanUps.push(() => closeSync(fd));
  return fd;
}

describe('a log that cannot be written', () => {
  test('on a full disk: requests are answered, nothing restarts, what was lost is counted, and SIGTERM ends it', async () => {
    const full = openSync('/dev/full', 'w');
    cleanUps.push(() => closeSync(full));
    const { child, get, workers, metric } = await start(() => full);
    const before = await workers();
    for (let count = 0; count < 20; count++) {
      expect(await (await get('http', '/')).text()).toBe('ok');
      expect((await get('http', '/throw')).status).toBe(500);
    }
    expect(await workers()).toMatchObject(before.map(({ pid, restarts }) => ({ pid, restarts })));
    await eventually('lost lines are counted', async () => (await metric('ringway_supervisor_log_lines_lost_total')) > 0);
    child.kill('SIGTERM');
    expect(await child.exited).toBe(0);
  });

  test('while nobody reads it: requests are answered, and SIGTERM ends it', async () => {
    const { child, get, workers } = await start(unreadPipe);
    const before = await workers();
    // Together far more than the pipe and all queues hold.
    for (let round = 0; round < 40; round++) await Promise.all(Array.from({ length: 50 }, async () => (await get('http', '/')).text()));
    expect((await get('http', '/throw')).status).toBe(500);
    expect(await workers()).toMatchObject(before.map(({ pid, restarts }) => ({ pid, restarts })));
    child.kill('SIGTERM');
    expect(await child.exited).toBe(0);
  });

  test('when it is read again, it goes on with whole lines and says once how many are missing', async () => {
    let fd = -1;
    const { get, metric } = await start((folder) => (fd = unreadPipe(folder)));
    const lost = () => metric('ringway_supervisor_log_lines_lost_total');
    await eventually('lines are lost', async () => {
      await Promise.all(Array.from({ length: 50 }, async () => (await get('http', '/')).text()));
      return (await lost()) > 0;
    });
    const all = await lost();
    // Everything is written by then: only what was lost is missing.
    let text = '';
    const buffer = Buffer.alloc(65536);
    const notice = /(\d+) lines of the log were lost/;
    await eventually('the loss is told', () => {
      text += buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, null));
      return notice.test(text);
    });
    const told = [...text.matchAll(new RegExp(notice, 'g'))];
    expect(told).toHaveLength(1);
    expect(Number(told[0]?.[1])).toBeLessThanOrEqual(all);
    const lines = text.split('\n').slice(0, -1);
    for (const line of lines) expect(line).toMatch(/^(x{1000}|y{1000}|\{.*\})$/);
  });
});
