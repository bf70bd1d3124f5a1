/** The types of the config: what stands in types.ts compiles, and what should not does not. */
import { afterAll, expect, test } from 'bun:test';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { route } from '../../../src/index.ts';
import { compile as compilerSays } from '../../support/compiler.ts';

const root = resolve(import.meta.dir, '../../..');
// Inside the tree, so that imports resolve; ffi/build is ignored by git.
mkdirSync(join(root, 'ffi/build'), { recursive: true });
const folder = mkdtempSync(join(root, 'ffi/build/types-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What tsc says of these programs, which stand beside each other. */
async function compile(files: Readonly<Record<string, string>>): Promise<string[]> {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const paths = { ringway: ['../../../src/index.ts'], 'ringway/uws': ['../../../src/frontend/uws/index.ts'] };
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ extends: '../../../tsconfig.json', compilerOptions: { paths }, files: Object.keys(files) }),
  );
  const { said } = await compilerSays(['--noEmit', '-p', folder], folder);
  return said.split('\n').filter((line) => line.includes('error TS'));
}

test('what the compiler takes and what it refuses is as types.ts says', async () => {
  const told = await compile({
    'all.ts': `import '../../../tests/unit/api/types.ts';`,
    'wrong.ts': `import { defineGateway } from 'ringway';\ndefineGateway({ htp: {} });`,
    'spelt.ts': `import { defineGateway } from 'ringway';\ndefineGateway({ websocket: { '/a/:b': { open: (socket) => socket.params.c } } });`,
    'topic.ts': `import { defineGateway } from 'ringway';\ndefineGateway({ topics: { 'a/:b': { authorize: (client) => client.params.c === '' } } });`,
  });
  expect(told.map((line) => line.replace(/\(.*/, '')).toSorted()).toEqual(['spelt.ts', 'topic.ts', 'wrong.ts']);
  expect(told.join('\n')).toContain("'htp'");
}, 90_000);

test('route() is an object with the route alone', () => {
  const handler = { open() {} };
  expect(route('/room/:name', handler)).toEqual({ '/room/:name': handler });
});
