/** `ringway doctor` where the kernel really forbids io_uring. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const main = join(import.meta.dir, '../../src/main.ts');
let folder: string;
let wrapper: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-doctor-'));
  wrapper = join(folder, 'no-io-uring');
  const { exitCode, stderr } = Bun.spawnSync([process.env.CC ?? 'cc', '-O1', '-o', wrapper, join(import.meta.dir, 'no-io-uring.c')]);
  if (exitCode !== 0) throw new Error(`the compiler that builds the core cannot build this: ${stderr}`);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** ret: its finding about io_uring */
function doctor(backend: 'auto' | 'io_uring' | 'epoll', ...command: string[]) {
  const path = join(folder, `${backend}.ts`);
  writeFileSync(
    path,
    `export default { fetch: () => new Response(), listen: 8080, admin: { port: 9100 }, workers: 1, io: { backend: '${backend}' } };`,
  );
  const { stdout, stderr, exitCode } = Bun.spawnSync([...command, process.execPath, main, 'doctor', '--json', '-c', path]);
  expect(stderr.toString()).toBe('');
  const { findings } = JSON.parse(stdout.toString()) as {
    findings: { check: string; verdict: string; what: string; remedies: { where: string; change: string }[] }[];
  };
  return { finding: findings.find(({ check }) => check === 'io_uring'), exitCode };
}

describe('where a seccomp filter forbids io_uring', () => {
  test('the doctor says so, and how a container gets it', () => {
    const { finding } = doctor('auto', wrapper);
    expect(finding).toMatchObject({ verdict: 'advice', what: expect.stringContaining('epoll takes its place') });
    expect(finding?.remedies.map(({ where }) => where)).toEqual(['docker', 'systemd']);
    expect(finding?.remedies[1]?.change).toContain('io_uring_setup');
  });

  test('it is a problem for a config that insists on it', () => {
    const { finding, exitCode } = doctor('io_uring', wrapper);
    expect([finding?.verdict, exitCode]).toEqual(['problem', 1]);
  });

  test('and nothing for one that wants epoll', () => {
    expect(doctor('epoll', wrapper).finding).toMatchObject({ verdict: 'ok', what: expect.stringContaining('not wanted') });
  });
});
