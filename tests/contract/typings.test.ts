/** The typings: programs written for the original's compile against ours, and the other way round. */
import { expect, test } from 'bun:test';
import { join } from 'node:path';
import { here } from './program.ts';

test('our typings and those of the original stand in for each other', async () => {
  const compiler = Bun.spawn(
    [process.execPath, join(here, '../../node_modules/typescript/bin/tsc'), '--noEmit', '-p', join(here, 'typings')],
    {
      stdout: 'pipe',
      stderr: 'pipe',
      env: { ...process.env, NO_COLOR: '1' },
    },
  );
  const [output, code] = await Promise.all([compiler.stdout.text(), compiler.exited]);
  expect(output).toBe('');
  expect(code).toBe(0);
}, 90_000);
