import { afterAll, beforeAll, expect, test } from 'bun:test';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { agreeOnPort } from '../../../src/worker/shared-ports.ts';

let folder: string;
const open = () => openSync(join(folder, 'ports'), 'a+');
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-ports-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

test('whoever asks first decides, for each listener of its own', () => {
  const [one, two] = [open(), open()];
  expect([agreeOnPort(one, 0, 4000), agreeOnPort(two, 0, 5000)]).toEqual([4000, 4000]);
  expect([agreeOnPort(two, 1, 5001), agreeOnPort(one, 1, 4001)]).toEqual([5001, 5001]);
  // Ten begins with one.
  expect([agreeOnPort(one, 10, 4010), agreeOnPort(one, 1, 4999), agreeOnPort(two, 10, 5010)]).toEqual([4010, 5001, 4010]);
  for (const fd of [one, two]) closeSync(fd);
});

test('processes that ask at the same moment agree', async () => {
  const path = join(folder, 'raced');
  const program = `
    const { agreeOnPort } = await import(${JSON.stringify(join(import.meta.dir, '../../../src/worker/shared-ports.ts'))});
    const fd = (await import('node:fs')).openSync(${JSON.stringify(path)}, 'a+');
    console.log(Array.from({ length: 50 }, (_, i) => agreeOnPort(fd, i, process.pid)).join());`;
  const children = Array.from({ length: 3 }, () => Bun.spawn([process.execPath, '-e', program], { stdout: 'pipe' }));
  const answers = await Promise.all(children.map((child) => new Response(child.stdout).text()));
  expect(new Set(answers).size).toBe(1);
  expect(answers[0]?.split(',')).toHaveLength(50);
});
