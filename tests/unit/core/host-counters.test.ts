import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { libraryPath } from '../../../ffi/bindings.ts';
import { ownRelease } from '../../../src/supervisor/release.ts';

const root = join(import.meta.dir, '..', '..', '..');

/** A worker counts, its supervisor shows. */
const program = `
import { native } from './ffi/bindings.ts';
import { Core } from './src/core/core.ts';
import { statIndex } from './src/core/stat-index.ts';
import { createMetrics } from './src/supervisor/metrics.ts';
import { ownRelease } from './src/supervisor/release.ts';
import { SharedResources } from './src/supervisor/shared-resources.ts';

const shared = SharedResources.create(native, 2);
const place = { inboxFdFirst: shared.inboxFds[0], shmFd: shared.shmFd, workerIndex: 1, workerCount: 2 };
const core = new Core({ backend: 'epoll', wakeFd: native.eventfdCreate(), ...place, numbers: { maxConnections: 16 } });
core.addStat(statIndex('lines_echoed'), 3);
core.addStat(statIndex('lines_echoed'), 4);
const workers = [0, 1].map(() => ({ isReady: true, restarts: 0 }));
const source = { workers, startedAtMs: 0, version: '1', generation: 1, reloads: {}, linesLost: 0 };
const metrics = await createMetrics({ ...source, read: (worker, field) => shared.counter(worker, field) }).metrics();
console.log(JSON.stringify({ metrics, counters: ownRelease.counters }));
`;

describe('a counter of TypeScript', () => {
  let product: string;
  beforeAll(() => {
    product = mkdtempSync(join(tmpdir(), 'ringway-counter-'));
    for (const part of ['src', 'package.json', 'ffi'])
      cpSync(join(root, part), join(product, part), { recursive: true, filter: (path) => path !== join(root, 'ffi', 'build') });
    symlinkSync(join(root, 'node_modules'), join(product, 'node_modules'));
  });
  afterAll(() => rmSync(product, { recursive: true }));

  test('is a line in one file: it is counted and shown, by a core that was built before', async () => {
    const declaration = join(product, 'src', 'core', 'host-counters.ts');
    const text = readFileSync(declaration, 'utf8');
    const list = 'export const hostCounters = [\n';
    expect(text).toContain(list);
    writeFileSync(declaration, text.replace(list, `${list}  counter('lines_echoed', 'Lines echoed.', one('lines_echoed')),\n`));
    writeFileSync(join(product, 'count.ts'), program);

    const env = { ...process.env, RINGWAY_LIBRARY: libraryPath };
    const child = Bun.spawn([process.execPath, 'count.ts'], { cwd: product, env, stdout: 'pipe', stderr: 'pipe' });
    const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
    expect([await child.exited, err]).toEqual([0, '']);
    const { metrics, counters }: { metrics: string; counters: number } = JSON.parse(out);
    expect(metrics).toContain('# HELP ringway_lines_echoed_total Lines echoed.\n# TYPE ringway_lines_echoed_total counter\n');
    expect(metrics).toContain('ringway_lines_echoed_total{worker="0"} 0\nringway_lines_echoed_total{worker="1"} 7\n');
    expect(metrics).toContain('ringway_node_lines_echoed_total 7\n');
    // Workers count otherwise than a supervisor of before: a reload takes it for another release.
    expect(counters).not.toBe(ownRelease.counters as number);
  });
});
