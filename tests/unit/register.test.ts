import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { meansOriginal, originalFiles } from '../../src/original-package.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-register-'));
  const files: Record<string, string> = {
    'app/package.json': '{ "name": "app" }',
    'app/uws.js': '',
    'app/dist/uws.js': '',
    'app/node_modules/uWebSockets.js/package.json': '{ "name": "uWebSockets.js" }',
    'app/node_modules/uWebSockets.js/uws.js': '',
    'app/node_modules/uWebSockets.js/examples/package.json': '{ "type": "commonjs" }',
    'app/node_modules/uwebsockets/package.json': '{ "name": "uwebsockets" }',
    'app/node_modules/other/package.json': '{ "name": "other" }',
    'app/node_modules/broken/package.json': '{ "name": ',
  };
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const means = (specifier: string, importer: string) => originalFiles.test(specifier) && meansOriginal(specifier, join(folder, importer));

describe('what means uWebSockets.js', () => {
  test("a file of its package, by path or by the package's name", () => {
    const modules = 'app/node_modules';
    expect([
      means('../dist/uws.js', `${modules}/uWebSockets.js/examples/HelloWorld.js`),
      means('../dist/uws.js', `${modules}/uwebsockets/examples/HelloWorld.js`),
      means('./uws.js', `${modules}/uWebSockets.js/ESM_wrapper.mjs`),
      means('./uws', `${modules}/uWebSockets.js/ESM_wrapper.mjs`),
      means('./node_modules/uWebSockets.js/uws.js', 'app/index.js'),
      means(join(folder, modules, 'uWebSockets.js/uws.js'), 'app/index.js'),
      means('uWebSockets.js/uws.js', 'app/index.js'),
      means('uwebsockets/ESM_wrapper.mjs', 'app/index.js'),
    ]).toEqual(new Array(8).fill(true));
  });

  test('the build that its examples look for, where there is none', () => {
    expect(means('../dist/uws.js', 'app/examples/HelloWorld.js')).toBe(false);
    expect(means('../dist/uws.js', 'elsewhere/examples/HelloWorld.js')).toBe(true);
  });

  test("not an app's own file of that name, nor one of another package", () => {
    expect([
      means('./uws.js', 'app/index.js'),
      means('./uws', 'app/index.js'),
      means('./dist/uws.js', 'app/index.js'),
      means('./missing/uws.js', 'app/index.js'),
      means('../uws.js', 'app/node_modules/other/lib/index.js'),
      means('./uws.js', 'app/node_modules/broken/index.js'),
      means('other/uws.js', 'app/index.js'),
      means('./my-uws.js', 'app/node_modules/uWebSockets.js/index.js'),
      means('./uws.json', 'app/node_modules/uWebSockets.js/index.js'),
    ]).toEqual(new Array(9).fill(false));
  });
});
