import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const root = join(import.meta.dir, '..', '..');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-preload-'));
  // A folder with nothing but this package, as `npm install ../ringway` leaves it.
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(root, join(folder, 'node_modules', 'ringway'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, text: string): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  return path;
}

async function bun(args: readonly string[], cwd = folder): Promise<{ out: string; err: string; code: number }> {
  const child = Bun.spawn([process.execPath, '--no-install', ...args], { cwd, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  return { out, err, code };
}
/** What a program prints with the preload, which must end with success. */
async function preloaded(path: string, cwd = folder): Promise<string> {
  const { out, err, code } = await bun(['--preload', cwd === folder ? 'ringway/register' : join(root, 'src', 'register.ts'), path], cwd);
  if (code !== 0) throw new Error(`it ended with ${code}: ${err}`);
  return out;
}

const isModule = '(uWS) => typeof uWS.App === "function" && typeof uWS.SSLApp === "function" && uWS.SHARED_COMPRESSOR === 1';

describe('ringway/register', () => {
  test('import gives it by name, as namespace and as default: one and the same', async () => {
    const program = write(
      'forms.mjs',
      `import uWS, { App } from 'uWebSockets.js';
       import * as all from 'uWebSockets.js';
       import copy from 'uwebsockets';
       const later = await import('uWebSockets.js');
       const is = ${isModule};
       console.log([uWS, all, all.default, copy, later].every(is), [uWS.App, all.App, copy.App, later.App].every((each) => each === App));`,
    );
    expect(await preloaded(program)).toBe('true true\n');
  });

  test('require gives it, whole and in parts, the same as import', async () => {
    const program = write(
      'forms.cjs',
      `const uWS = require('uWebSockets.js');
       const { App } = require('uwebsockets');
       const is = ${isModule};
       import('uWebSockets.js').then((all) => console.log(is(uWS), App === uWS.App, all.App === App, require('uWebSockets.js') === uWS));`,
    );
    expect(await preloaded(program)).toBe('true true true true\n');
  });

  test('TypeScript programs, and such as import ringway/uws beside', async () => {
    const program = write(
      'typed.ts',
      `import { App, type TemplatedApp } from 'uWebSockets.js';
       import { App as Own } from 'ringway/uws';
       const make: () => TemplatedApp = App;
       console.log(make === Own);`,
    );
    expect(await preloaded(program)).toBe('true\n');
  });

  test('an installed original is not loaded, by whatever path', async () => {
    const original = 'node_modules/uWebSockets.js';
    write(
      `${original}/package.json`,
      '{ "name": "uWebSockets.js", "main": "uws.js", "exports": { "import": "./ESM_wrapper.mjs", "require": "./uws.js" } }',
    );
    write(`${original}/uws.js`, "throw new Error('the original was loaded')");
    write(`${original}/ESM_wrapper.mjs`, "import uWS from './uws.js'; export default uWS; export const App = uWS.App;");
    const example = write(`${original}/examples/Example.js`, "console.log(typeof require('../dist/uws.js').App)");
    const wrapper = write('wrapper.mjs', "import { App } from './node_modules/uWebSockets.js/ESM_wrapper.mjs'; console.log(typeof App)");
    const program = write(
      'installed.cjs',
      "console.log(typeof require('uWebSockets.js').App, typeof require('./node_modules/uWebSockets.js/uws.js').App)",
    );
    expect([await preloaded(program), await preloaded(example), await preloaded(wrapper)]).toEqual([
      'function function\n',
      'function\n',
      'function\n',
    ]);
    rmSync(join(folder, original), { recursive: true });
  });

  test("an app's own ./uws.js stays its own", async () => {
    write('own/uws.js', "module.exports = { App: 'mine' }");
    const program = write(
      'own/program.cjs',
      "console.log(require('./uws.js').App, require('./uws').App, typeof require('uWebSockets.js').App)",
    );
    expect(await preloaded(program)).toBe('mine mine function\n');
  });

  test('a require of ringway/register before that of uWebSockets.js does as well, and so does bunfig.toml', async () => {
    const program = write('first.cjs', "require('ringway/register'); console.log(typeof require('uWebSockets.js').App)");
    expect((await bun([program])).out).toBe('function\n');
    write('configured/bunfig.toml', `preload = [${JSON.stringify(join(root, 'src', 'register.ts'))}]`);
    write('configured/program.mjs', "import { App } from 'uWebSockets.js'; console.log(typeof App)");
    expect((await bun(['program.mjs'], join(folder, 'configured'))).out).toBe('function\n');
  });

  test('threads and forked processes have it too', async () => {
    const program = write(
      'threads.cjs',
      `const { Worker, isMainThread } = require('worker_threads');
       if (isMainThread && !process.argv[2]) {
         const fork = () => require('child_process').fork(__filename, ['child']).on('exit', () => {});
         new Worker(__filename).on('exit', fork);
       } else console.log(isMainThread ? 'process' : 'thread', typeof require('uWebSockets.js').App);`,
    );
    expect(await preloaded(program)).toBe('thread function\nprocess function\n');
  });

  test('a folder without the package, by the path of the preload', async () => {
    const elsewhere = mkdtempSync(join(tmpdir(), 'ringway-elsewhere-'));
    writeFileSync(join(elsewhere, 'program.mjs'), "import { App } from 'uWebSockets.js'; console.log(typeof App)");
    try {
      expect(await preloaded('program.mjs', elsewhere)).toBe('function\n');
    } finally {
      rmSync(elsewhere, { recursive: true });
    }
  });

  test('what it gives serves requests and WebSockets, and the program ends when it has closed', async () => {
    const program = write(
      'serve.cjs',
      `const uWS = require('uWebSockets.js');
       uWS.App()
         .get('/hello/:name', (res, req) => res.end('hello ' + req.getParameter(0)))
         .ws('/*', { message: (ws, message, isBinary) => ws.send(message, isBinary) })
         .listen('127.0.0.1', 0, async (token) => {
           const port = uWS.us_socket_local_port(token);
           const text = await (await fetch('http://127.0.0.1:' + port + '/hello/you', { headers: { connection: 'close' } })).text();
           const socket = new WebSocket('ws://127.0.0.1:' + port);
           socket.onopen = () => socket.send('echo');
           socket.onmessage = ({ data }) => {
             console.log(text, data);
             socket.close();
             uWS.us_listen_socket_close(token);
           };
         });`,
    );
    expect(await preloaded(program)).toBe('hello you echo\n');
  });
});
