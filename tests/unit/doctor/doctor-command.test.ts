import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { doctor } from '../../../src/cli/doctor.ts';
import type { Finding } from '../../../src/doctor/finding.ts';
import { healthyTree, limits, makeTree, removeTrees, type Tree } from '../../support/doctor-trees.ts';

const main = join(import.meta.dir, '../../../src/main.ts');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-doctor-command-'));
});
afterAll(() => {
  rmSync(folder, { recursive: true });
  removeTrees();
});

interface Report {
  readonly version: string;
  readonly judgedFor: { readonly connections: number; readonly isAsked: boolean; readonly workers: number };
  readonly findings: readonly Finding[];
}

function config(name: string, options: string): string {
  const path = join(folder, name);
  writeFileSync(path, `export default { fetch: () => new Response(), ${options} };\n`);
  return path;
}

/** A config of its own, so that neither this folder nor the environment has a say. */
async function judge(tree: Tree, options = 'listen: 8080, workers: 2', connections?: number) {
  const configPath = config(`config-${Bun.randomUUIDv7()}.ts`, options);
  const { text, exitCode } = await doctor({ configPath, connections, json: true, root: makeTree(tree) });
  return { exitCode, report: JSON.parse(text) as Report };
}
const verdictsOf = ({ findings }: Report) => Object.fromEntries(findings.map(({ check, verdict }) => [check, verdict]));

describe('the report on a machine', () => {
  test('on which nothing is wrong ends with 0', async () => {
    const { exitCode, report } = await judge(healthyTree);
    // Whether the core gets a ring is a fact of the machine that this test runs on.
    const findings = report.findings.filter(({ check }) => check !== 'io_uring');
    expect(findings.filter(({ verdict }) => verdict !== 'ok')).toEqual([]);
    expect(findings.length).toBeGreaterThan(14);
    expect(exitCode).toBe(0);
  });

  test('that has one problem ends with 1 and names it, with remedies', async () => {
    const { exitCode, report } = await judge(
      { ...healthyTree, '/proc/self/limits': limits('20000') },
      'workers: 2, limits: { maxConnections: 50000 }',
    );
    expect(exitCode).toBe(1);
    expect(report.judgedFor).toEqual({ connections: 100_000, isAsked: true, workers: 2 });
    expect(report.findings.filter(({ verdict }) => verdict === 'problem')).toEqual([
      expect.objectContaining({
        check: 'descriptors',
        remedies: expect.arrayContaining([{ where: 'systemd', change: 'LimitNOFILE=50259' }]),
      }),
    ]);
  });

  test('that has advice only ends with 0', async () => {
    const { exitCode, report } = await judge({ ...healthyTree, '/proc/sys/net/core/somaxconn': '128\n' });
    expect([exitCode, verdictsOf(report)['accept-queue']]).toEqual([0, 'advice']);
  });

  test('of which nothing can be seen says that it is no Linux, and does not fail', async () => {
    const { exitCode, report } = await judge({});
    expect([exitCode, verdictsOf(report).kernel]).toEqual([1, 'problem']);
  });

  test('judges for --connections', async () => {
    const { report } = await judge(healthyTree, 'workers: 4', 3_000_000);
    expect(report.judgedFor.connections).toBe(3_000_000);
    expect(verdictsOf(report)).toMatchObject({ descriptors: 'ok', memory: 'problem', 'tcp-memory': 'advice' });
  });

  test('as text has a line for each finding, its remedies below it, and a sum', async () => {
    const root = makeTree({ ...healthyTree, '/proc/sys/net/core/somaxconn': '128\n' });
    const { text } = await doctor({ configPath: config('text.ts', 'listen: 8080, workers: 1'), connections: undefined, json: false, root });
    expect(text).toMatch(/^ok +kernel +Linux 6\.12\.5-amd64$/m);
    expect(text).toMatch(/^advice +accept-queue .*128.*\n +host +sysctl -w net\.core\.somaxconn=4096$/m);
    expect(text).toMatch(/^\d+ ok, \d+ advice, 0 problems$/m);
    expect(text).toContain('/etc/sysctl.d/');
  });
});

describe('the command', () => {
  async function ringway(cwd: string, ...args: string[]) {
    const { PORT, ADMIN_PORT, WORKERS, REDIS_URL, ...env } = process.env;
    const command = Bun.spawn({
      cmd: [process.execPath, '--no-install', main, 'doctor', ...args],
      cwd,
      env,
      stdout: 'pipe',
      stderr: 'pipe',
    });
    const [out, err, exitCode] = await Promise.all([command.stdout.text(), command.stderr.text(), command.exited]);
    return { out, err, exitCode };
  }
  function expectSound({ out, err, exitCode }: { out: string; err: string; exitCode: number }): Report {
    expect(err).toBe('');
    const report = JSON.parse(out) as Report;
    expect(exitCode).toBe(report.findings.some(({ verdict }) => verdict === 'problem') ? 1 : 0);
    return report;
  }
  const emptyFolder = () => makeTree({});

  test('works without a config: it has really tried a ring', async () => {
    const report = expectSound(await ringway(emptyFolder(), '--json'));
    expect(report.judgedFor.isAsked).toBe(false);
    expect(report.findings.find(({ check }) => check === 'io_uring')?.what).toMatch(/has set up a ring|epoll takes its place/);
    expect(report.findings.map(({ check }) => check)).not.toContain('core');
  });

  test('takes gateway.config.ts of its folder, or the one named with -c', async () => {
    const options = 'limits: { maxConnections: 12 }, workers: 1';
    const cwd = makeTree({ 'gateway.config.ts': `export default { fetch: () => new Response(), ${options} };` });
    expect(expectSound(await ringway(cwd, '--json')).judgedFor).toEqual({ connections: 12, isAsked: true, workers: 1 });
    expect(expectSound(await ringway(emptyFolder(), '--json', '-c', join(cwd, 'gateway.config.ts'))).judgedFor.connections).toBe(12);
  });

  test('a config that is wrong or absent is a problem, and all else is judged', async () => {
    for (const path of [config('wrong.ts', "workers: 'two'"), join(folder, 'absent.ts')]) {
      const { out, exitCode } = await ringway(emptyFolder(), '--json', '-c', path);
      const report = JSON.parse(out) as Report;
      expect(exitCode).toBe(1);
      expect(report.findings[0]).toMatchObject({ check: 'config', verdict: 'problem', remedies: [{ change: `ringway check -c ${path}` }] });
      expect(report.findings.length).toBeGreaterThan(8);
    }
  });

  test('a core that cannot be loaded is a problem, and all else is judged', async () => {
    const cwd = emptyFolder();
    const env = { ...process.env, RINGWAY_LIBRARY: join(cwd, 'absent.so') };
    const command = Bun.spawn({
      cmd: [process.execPath, '--no-install', main, 'doctor', '--json'],
      cwd,
      env,
      stdout: 'pipe',
      stderr: 'pipe',
    });
    const report = JSON.parse(await command.stdout.text()) as Report;
    expect(await command.exited).toBe(1);
    expect(report.findings.map(({ check }) => check)).not.toContain('io_uring');
    expect(report.findings[0]).toMatchObject({ check: 'core', verdict: 'problem', what: expect.stringContaining('absent.so') });
    expect(report.findings.length).toBeGreaterThan(8);
  });

  test('a wrong number of connections is refused with 64', async () => {
    const { exitCode, err } = await ringway(emptyFolder(), '--connections', '0');
    expect(exitCode).toBe(64);
    expect(err).toStartWith("ringway: --connections is '0'; write an integer from 1 to ");
  });
});
