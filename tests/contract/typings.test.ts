/** The typings: programs written for the original's compile against ours, and the other way round. */
import { expect, test } from 'bun:test';
import { join } from 'node:path';
import { compile } from '../support/compiler.ts';
import { here } from './program.ts';

test('our typings and those of the original stand in for each other', async () => {
  expect(await compile(['--noEmit', '-p', join(here, 'typings')])).toEqual({ said: '', code: 0 });
}, 90_000);
