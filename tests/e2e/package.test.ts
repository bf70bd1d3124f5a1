/**
 * The npm package as people get it: packed from a copy of this tree, installed into empty folders, run from there. Takes the npm registry
 * or npm's cache, and the Debian archive or the cache of scripts/pack-cores.mjs.
 */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { abiVersion } from '../../ffi/layout.ts';
import { defaults } from '../../src/config/defaults.ts';
import { exitCodes } from '../../src/exit-codes.ts';
import { RunningProgram } from '../support/running-program.ts';

// Only ends a test that has failed: compilers and npm may take their time.
setDefaultTimeout(600_000);

const root = join(import.meta.dir, '..', '..');
const library = 'libringway.so';
let folder: string;
let tarball: string;
/** Where the tarball is installed with npm. */
let app: string;
const running = new Set<Command>();

/** The environment without what npm puts there for those that it runs, such as these tests, and without what steers a gateway. */
function cleanEnvironment(): Record<string, string> {
  const foreign = /^(?:npm_|INIT_CWD$|NODE_ENV$|PORT$|ADMIN_PORT$|WORKERS$|RINGWAY_|XDG_CACHE_HOME$)/i;
  return Object.fromEntries(Object.entries(process.env).filter(([name, value]) => value !== undefined && !foreign.test(name))) as Record<
    string,
    string
  >;
}

interface CommandOptions {
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** A program that runs, and what it has written. */
class Command extends RunningProgram {
  constructor(words: readonly string[], { cwd, env = {} }: CommandOptions) {
    super(words, { cwd, env: { ...cleanEnvironment(), ...env } });
    running.add(this);
  }

  override async ended(): Promise<number> {
    const code = await super.ended();
    running.delete(this);
    return code;
  }

  /** Its address, once it serves. */
  async url(): Promise<string> {
    return `http://127.0.0.1:${await this.says(/listening on http:\/\/localhost:(\d+)/, 300_000)}`;
  }

  /** Drain, as a service manager does it. ret: its exit code */
  async drain(): Promise<number> {
    this.kill('SIGTERM');
    return await this.ended();
  }

  /** A launcher is killed with what it has started: the second signal stops a gateway at once. */
  override async stop(): Promise<void> {
    this.kill('SIGTERM');
    await Bun.sleep(100);
    this.kill('SIGTERM');
    await this.ended();
  }
}

/** Run to its end; throws when that is not success. ret: standard output */
async function run(words: readonly string[], options: CommandOptions): Promise<string> {
  const command = new Command(words, options);
  const code = await command.ended();
  if (code !== 0) throw new Error(`'${words.join(' ')}' ended with ${code}:\n${command.out}\n${command.err}`);
  return command.out;
}

/** A gateway of an installed package on ports that the system chooses. */
function startIn(where: string, options: { wrapper?: readonly string[]; env?: Readonly<Record<string, string>> } = {}): Command {
  // A home of its own: what was compiled into that of the user before might fit.
  const env = { PORT: '0', ADMIN_PORT: '0', WORKERS: '2', HOME: folder, ...options.env };
  return new Command([...(options.wrapper ?? []), join(where, 'node_modules/.bin/ringway'), 'start'], { cwd: where, env });
}

async function expectServes(gateway: Command): Promise<void> {
  const url = await gateway.url();
  expect(await (await fetch(url)).text()).toBe('Hello from Ringway');
  const socket = new WebSocket(`${url.replace('http', 'ws')}/echo`);
  const heard = new Promise((resolve, reject) => {
    socket.onopen = () => socket.send('echo');
    socket.onmessage = ({ data }) => resolve(data);
    socket.onclose = reject;
  });
  expect(await heard).toBe('echo');
  socket.close();
}

const installed = (where: string, ...path: string[]) => join(where, 'node_modules/ringway', ...path);

/** An empty folder into which a package is installed that all may read: a test is another user there. */
function emptyFolder(name: string): string {
  const path = join(folder, name);
  mkdirSync(path);
  writeFileSync(join(path, 'package.json'), '{ "private": true, "type": "module" }');
  return path;
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-package-'));
  chmodSync(folder, 0o755);
  // In a copy: what is made for the package must not be found by the gateways of other tests.
  const tree = join(folder, 'tree');
  const left = /(?:^|\/)node_modules$|^(?:\.git|ffi\/build|bench|types|prebuilt|[^/]+\.tgz)$/;
  cpSync(root, tree, { recursive: true, filter: (path) => !left.test(relative(root, path)) });
  symlinkSync(join(root, 'node_modules'), join(tree, 'node_modules'));
  await run(['npm', 'pack', '--pack-destination', folder], {
    cwd: tree,
    env: process.env.XDG_CACHE_HOME ? { XDG_CACHE_HOME: process.env.XDG_CACHE_HOME } : {},
  });
  expect([existsSync(join(tree, 'types')), existsSync(join(tree, 'prebuilt'))]).toEqual([false, false]);
  tarball = join(folder, readdirSync(folder).find((name) => name.endsWith('.tgz')) ?? 'none');

  app = emptyFolder('app');
  // No scripts run, as npm 12 has it: Bun is then found in the package of its platform.
  await run(['npm', 'install', '--prefer-offline', '--ignore-scripts', '--no-audit', '--no-fund', tarball], { cwd: app });
  await run(['npx', 'ringway', 'init'], { cwd: app });
});
afterEach(async () => {
  for (const command of running) await command.stop();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('the tarball', () => {
  test('has what runs, what it is compiled from, and what explains it; no tests, benchmarks or scripts', async () => {
    const names = (await run(['tar', '-tzf', tarball], { cwd: folder })).trim().split('\n');
    const tops = new Set(names.map((name) => name.split('/')[1]));
    const wanted = ['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json', 'bin', 'docs', 'ffi', 'packaging', 'prebuilt', 'src', 'types'];
    expect([...tops].sort()).toEqual(wanted.sort());
    expect(names.filter((name) => /\.test\.|\.log$|build\/|node_modules/.test(name))).toEqual([]);
    for (const name of [`prebuilt/linux-x64-glibc/${library}`, `prebuilt/linux-arm64-glibc/${library}`, 'prebuilt/LICENSES.txt'])
      expect(names).toContain(`package/${name}`);
    expect(statSync(tarball).size).toBeLessThan(8_000_000);
  });

  test('names files that are there', () => {
    const manifest = JSON.parse(readFileSync(installed(app, 'package.json'), 'utf8'));
    expect(manifest.private).toBeUndefined();
    const targets = [
      manifest.types,
      ...Object.values(manifest.bin),
      ...Object.values(manifest.exports)
        .flatMap((target) => Object.values(Object(target)))
        .flat(),
    ];
    const files = targets.filter((target): target is string => typeof target === 'string' && target.startsWith('./'));
    expect(files.length).toBeGreaterThanOrEqual(8);
    expect(files.filter((file) => !existsSync(installed(app, file)))).toEqual([]);
  });
});

describe('in an empty folder', () => {
  test('installed with npm that runs no scripts: it serves, and stops when asked', async () => {
    const gateway = startIn(app);
    await expectServes(gateway);
    expect(await gateway.drain()).toBe(0);
    // The prebuilt core: nothing was compiled.
    expect([gateway.err, existsSync(installed(app, 'ffi/build'))]).toEqual(['', false]);
  });

  test('installed with Bun: the same', async () => {
    const where = emptyFolder('bun-app');
    await run([process.execPath, 'add', tarball], { cwd: where });
    await run([join(where, 'node_modules/.bin/ringway'), 'init'], { cwd: where });
    const gateway = startIn(where);
    await expectServes(gateway);
    expect(await gateway.drain()).toBe(0);
  });

  describe('types', () => {
    const program = `
import { Hono } from 'hono';
import { defineGateway, getConnInfo, history, type Message, onOneWorker, publish, type RingwayBindings, type Socket, subscribe, type SubscribeResult, upgradeWebSocket, type WebSocketHandler } from 'ringway';
import { App, DeclarativeResponse, type TemplatedApp, type WebSocket as UwsSocket } from 'ringway/uws';
import 'ringway/register';
const app = new Hono<{ Bindings: RingwayBindings }>();
app.get('/whoami', (c) => c.text(getConnInfo(c).remote.address ?? c.env.ip()?.address ?? 'unknown'));
app.get('/ws', upgradeWebSocket(() => ({ onMessage: (event, ws) => ws.send(String(event.data)) })));
const chat: WebSocketHandler<{ name: string }> = {
  upgrade: (request) => (request.url === '' ? new Response('', { status: 401 }) : { name: request.url }),
  open(socket: Socket<{ name: string }>) { socket.subscribe(socket.data.name); },
  message(socket, message: Message) { if (!message.isBinary) publish('a', message.text()); socket.send(message); },
};
const uws: TemplatedApp = App();
uws.get('/x', new DeclarativeResponse().end('x')).ws<{ name: string }>('/*', { open(ws: UwsSocket<{ name: string }>) { ws.send(ws.getUserData().name); } });
onOneWorker(async () => (await subscribe('a', (message, { offset }) => console.log(message, offset))).unsubscribe);
app.get('/past', async (c) => c.json((await history('chat/a', { limit: 5 })).messages));
export const comesBack = (socket: Socket, since: string): Promise<SubscribeResult> => socket.subscribe('chat/a', { since });
// @ts-expect-error: a position
history('a', { since: 5 });
// @ts-expect-error: a number, or 'auto'
defineGateway({ fetch: app, workers: 'two' });
// @ts-expect-error: text or bytes
publish('topic', 5);
export default defineGateway({
  fetch: app,
  topics: { 'chat/:room': { history: { size: 1, seconds: 1 }, authorize: (client) => client.params.room !== '' } },
  websocket: { '/chat': chat },
});
`;
    beforeAll(() => writeFileSync(join(app, 'program.ts'), program));

    for (const skipLibCheck of [true, false]) {
      for (const module of ['preserve', 'nodenext']) {
        test(`the config that init wrote and one with all else are correct (skipLibCheck ${skipLibCheck}, module ${module})`, async () => {
          const compilerOptions = {
            ...{ target: 'esnext', module, skipLibCheck, noEmit: true, types: [], strict: true, verbatimModuleSyntax: true },
            ...{ noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, noUnusedLocals: true, noImplicitOverride: true },
          };
          const settings = join(app, `tsconfig.${module}.${skipLibCheck}.json`);
          writeFileSync(settings, JSON.stringify({ compilerOptions, include: ['*.ts'] }));
          const out = await run(['node', join(root, 'node_modules/typescript/bin/tsc'), '--listFiles', '-p', settings], { cwd: app });
          const read = out.split('\n').filter((name) => name.includes('/node_modules/ringway/'));
          expect(read.length).toBeGreaterThan(10);
          // Our sources are for our options alone.
          expect(read.filter((name) => !name.endsWith('.d.ts'))).toEqual([]);
          for (const name of ['gateway.config.ts', 'program.ts']) expect(out).toContain(join(app, name));
        });
      }
    }
  });
});

describe('where no prebuilt core fits', () => {
  let other: string;
  const otherCore = () => installed(other, 'prebuilt', `linux-${process.arch}-glibc`, library);

  beforeAll(() => {
    other = join(folder, 'other');
    cpSync(app, other, { recursive: true, verbatimSymlinks: true });
    const foreign = process.arch === 'arm64' ? 'x64' : 'arm64';
    cpSync(installed(other, 'prebuilt', `linux-${foreign}-glibc`, library), otherCore());
  });

  test('without a compiler it says which packages to install', async () => {
    // A PATH with Node alone.
    const path = join(folder, 'path');
    mkdirSync(path);
    symlinkSync(Bun.which('node') ?? '', join(path, 'node'));
    const gateway = startIn(other, { env: { PATH: path } });
    expect(await gateway.ended()).toBe(1);
    expect(gateway.err).toContain(`${otherCore()} cannot be loaded`);
    expect(gateway.err).toMatch(/missing:\n {2}gcc: .*\n {2}make: /);
    expect(gateway.err).toContain('apt-get install -y --no-install-recommends gcc make');
    expect(gateway.err).toContain('apk add gcc make');
    expect(existsSync(installed(other, 'ffi/build', library))).toBe(false);
  });

  test('a worker does not compile one: its supervisor has', async () => {
    const worker = new Command([process.execPath, installed(other, 'ffi/bindings.ts')], { cwd: other, env: { RINGWAY_WORKER: '{}' } });
    expect(await worker.ended()).toBe(1);
    expect(worker.err).toContain("run 'ringway build', then start it again");
    expect(worker.err).not.toContain('compiling');
  });

  test('where the package may not be written to, it is compiled into the cache of the user by ringway build, and found there', async () => {
    const home = join(folder, 'home');
    mkdirSync(home);
    const isRoot = process.getuid?.() === 0;
    // Root may write everywhere: be somebody else.
    const wrapper = isRoot ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : [];
    if (isRoot) chmodSync(home, 0o777);
    else chmodSync(installed(other, 'ffi'), 0o555);
    const build = [...wrapper, join(other, 'node_modules/.bin/ringway'), 'build'];
    const compiled = /^compiled (.*)\n$/.exec(await run(build, { cwd: other, env: { HOME: home } }))?.[1] ?? '';
    expect(compiled).toStartWith(`${home}/.cache/ringway/core-${process.arch}-glibc-`);
    const gateway = startIn(other, { wrapper, env: { HOME: home } });
    await expectServes(gateway);
    expect([await gateway.drain(), gateway.err]).toEqual([0, '']);
    chmodSync(installed(other, 'ffi'), 0o755);

    // What somebody else may have written is not loaded: here one that its group could.
    chmodSync(compiled, 0o775);
    const refused = new Command([...wrapper, process.execPath, installed(other, 'ffi/bindings.ts')], {
      cwd: other,
      env: { HOME: home, RINGWAY_WORKER: '{}' },
    });
    expect([await refused.ended(), refused.err.includes('cannot be loaded')]).toEqual([1, true]);
  });

  test('two gateways that start at once compile it into the package, say so, and serve; also where one of another version lies', async () => {
    const compiled = installed(other, 'ffi/build', library);
    const stale = join(folder, 'stale.c');
    writeFileSync(stale, 'unsigned rw_abi_version(void) { return 1; }');
    mkdirSync(installed(other, 'ffi/build'));
    await run(['cc', '-shared', '-fPIC', '-o', compiled, stale], { cwd: folder });
    const temporary = join(folder, 'tmp');
    mkdirSync(temporary);
    const both = [1, 2].map(() => startIn(other, { env: { TMPDIR: temporary } }));
    for (const gateway of both) await expectServes(gateway);
    for (const gateway of both) expect(await gateway.drain()).toBe(0);
    const said = both.map(({ err }) => err).join('');
    expect(said).toContain(`${compiled} has ABI 1, this program needs ${abiVersion}`);
    expect(said).toContain(`compiling the C core into ${compiled}`);
    expect(readdirSync(installed(other, 'ffi/build')).sort()).toEqual([library, `${library}.lock`]);
    expect(readdirSync(temporary).filter((name) => name.startsWith('ringway-core.'))).toEqual([]);
    const again = startIn(other);
    await expectServes(again);
    expect([await again.drain(), again.err]).toEqual([0, '']);
  });
});

describe('the prebuilt core for the other kind of machine', () => {
  const isArm = process.arch === 'arm64';
  const machine = isArm
    ? { arch: 'x64', triple: 'x86_64-linux-gnu', qemu: 'qemu-x86_64-static', elf: 'Advanced Micro Devices X86-64' }
    : { arch: 'arm64', triple: 'aarch64-linux-gnu', qemu: 'qemu-aarch64-static', elf: 'AArch64' };
  const core = () => installed(app, `prebuilt/linux-${machine.arch}-glibc`, library);
  const exported = () =>
    [...readFileSync(join(root, 'ffi/include/ringway.h'), 'utf8').matchAll(/^RW_EXPORT [^(]*?(rw_\w+)\(/gm)]
      .map(([, name = '']) => name)
      .sort();

  test('is a shared library for it, with every function of the ABI', async () => {
    const header = await run(['readelf', '--file-header', core()], { cwd: folder });
    expect(/Type: +(\w+)/.exec(header)?.[1]).toBe('DYN');
    expect(/Machine: +(.+)/.exec(header)?.[1]).toBe(machine.elf);
    const symbols = await run([`${machine.triple}-nm`, '--dynamic', '--defined-only', core()], { cwd: folder });
    expect([...symbols.matchAll(/ T (\w+)$/gm)].map(([, name = '']) => name).sort()).toEqual(exported());
  });

  test('loads there, has every function, and answers', async () => {
    const source = join(folder, 'load.c');
    const names = exported();
    writeFileSync(
      source,
      `#include <dlfcn.h>
       #include <stdio.h>
       int main(int count, char **names) {
         void *core = dlopen(names[1], RTLD_NOW | RTLD_LOCAL);
         if (core == NULL) return puts(dlerror()), 1;
         for (int i = 2; i < count; i++) if (dlsym(core, names[i]) == NULL) return puts(names[i]), 1;
         unsigned (*version)(void) = (unsigned (*)(void))dlsym(core, "rw_abi_version");
         int (*eventfd)(void) = (int (*)(void))dlsym(core, "rw_eventfd_create");
         printf("%u %d\\n", version(), eventfd() > 2);
         return 0;
       }`,
    );
    await run([`${machine.triple}-gcc`, '-o', join(folder, 'load'), source], { cwd: folder });
    const words = [machine.qemu, '-L', `/usr/${machine.triple}`, join(folder, 'load'), core(), ...names];
    expect(await run(words, { cwd: folder })).toBe(`${abiVersion} 1\n`);
  });
});

describe('the systemd unit', () => {
  const text = () => readFileSync(installed(app, 'packaging/systemd/ringway.service'), 'utf8');
  const value = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(text())?.[1];

  test('is one that systemd understands', async () => {
    const unit = join(folder, 'ringway.service');
    // It must name a program that is there.
    writeFileSync(unit, text().replace(/^(ExecStart=)\S+/m, `$1${join(app, 'node_modules/.bin/ringway')}`));
    const verify = new Command(['systemd-analyze', 'verify', '--man=no', unit], { cwd: folder });
    expect([await verify.ended(), verify.err, verify.out]).toEqual([0, '', '']);
  });

  test('says what the gateway means', () => {
    expect(value('RestartPreventExitStatus')).toBe(String(exitCodes.config));
    expect(Number(value('TimeoutStopSec'))).toBeGreaterThan(defaults.drain.timeout);
    // It says itself when it is ready, and that it goes on; what says so is a child of what is started.
    expect([value('NotifyAccess'), Number(value('WatchdogSec')) > 0]).toEqual(['all', true]);
    expect([value('Type'), value('KillMode'), value('Restart'), value('ExecReload')]).toEqual([
      'notify',
      'mixed',
      'on-failure',
      '/bin/kill -HUP $MAINPID',
    ]);
    // The JIT compiler needs what this forbids.
    expect(value('MemoryDenyWriteExecute')).toBeUndefined();
    for (const call of ['io_uring_setup', 'io_uring_enter', 'io_uring_register'])
      expect(text()).toMatch(new RegExp(`^SystemCallFilter=.*\\b${call}\\b`, 'm'));
  });
});
