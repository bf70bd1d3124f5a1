import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { libraryPath } from '../../ffi/bindings.ts';
import { abiVersion } from '../../ffi/layout.ts';
import type { NodeHealth } from '../../src/supervisor/health.ts';
import { version } from '../../src/version.ts';
import { eventually } from '../support/eventually.ts';
import { closePayload, frame, opcode } from '../support/frames.mjs';
import { type Gateway, startGateway } from '../support/gateway.ts';
import { isAlive } from '../support/process-state.ts';
import { expectWhole, type Load, startLoad } from '../support/reload-load.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(180_000);

const root = join(import.meta.dir, '..', '..');
const newVersion = `${abiVersion + 1}.0.0`;

const config = `
import { defineGateway } from 'ringway';
import { answer } from './answer.ts';
import { settings } from './settings.ts';
export default defineGateway({
  ...settings,
  fetch: async (request) => {
    if (new URL(request.url).pathname === '/held') while (!(await Bun.file(new URL('release', import.meta.url)).exists())) await Bun.sleep(10);
    return new Response(answer);
  },
  websocket: { '/echo': { message: (socket, message) => void socket.send(message) } },
});
`;
const settingsText = (drainSeconds: number, extra = {}) =>
  `export const settings = ${JSON.stringify({
    listen: { port: 0, host: '127.0.0.1' },
    admin: { port: 0 },
    workers: 2,
    io: { backend: 'epoll' },
    affinity: false,
    drain: { timeout: drainSeconds },
    ...extra,
  })} as const;`;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-upgrade-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

let gateway: Gateway | undefined;
let load: Load | undefined;
afterEach(async () => {
  load?.kill();
  load = undefined;
  await gateway?.stop();
  gateway = undefined;
});

/** This product as it would be installed elsewhere. */
function installCopy(name: string): string {
  const product = join(folder, name);
  for (const part of ['src', 'package.json', 'ffi']) {
    cpSync(join(root, part), join(product, part), { recursive: true, filter: (path) => path !== join(root, 'ffi', 'build') });
  }
  symlinkSync(join(root, 'node_modules'), join(product, 'node_modules'));
  cpSync(libraryPath, join(product, 'ffi', 'build', 'libringway.so'));
  return product;
}

/** Stands before the core of this release, and makes one of another ABI of it that is otherwise the same. */
const otherAbi = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include "ringway.h"
uint32_t rw_abi_version(void) { return OTHER_ABI; }
struct rw_core *rw_core_create(const struct rw_core_config *config, char *error, size_t error_bytes) {
    struct rw_core *(*create)(const struct rw_core_config *, char *, size_t) = dlsym(RTLD_NEXT, "rw_core_create");
    struct rw_core_config own = *config;
    if (own.abi_version != OTHER_ABI) return NULL;
    own.abi_version = RW_ABI_VERSION;
    return create(&own, error, error_bytes);
}
`;

/** Put another release in its place, whose core has another ABI. */
async function installNext(product: string, abi: number): Promise<void> {
  const [source, core, library] = ['abi.c', 'core.so', 'libringway.so'].map((name) => join(product, 'ffi', 'build', name)) as [
    string,
    string,
    string,
  ];
  writeFileSync(source, otherAbi);
  cpSync(libraryPath, core);
  const options = ['-shared', '-fPIC', `-DOTHER_ABI=${abi}`, `-I${join(product, 'ffi', 'include')}`, '-Wl,--no-as-needed'];
  const compiler = Bun.spawn([process.env.CC ?? 'cc', ...options, '-o', `${library}.new`, source, core], { stderr: 'pipe' });
  const problem = await new Response(compiler.stderr).text();
  if ((await compiler.exited) !== 0) throw new Error(`the compiler that builds the core cannot build this: ${problem}`);
  // As a package manager does it: what is in use is not written to.
  renameSync(`${library}.new`, library);
  replaceIn(join(product, 'package.json'), /"version": "[^"]*"/, `"version": "${abi}.0.0"`);
  replaceIn(join(product, 'ffi', 'layout.ts'), /abiVersion = \d+/, `abiVersion = ${abi}`);
}

function replaceIn(path: string, what: RegExp, by: string): void {
  const text = readFileSync(path, 'utf8');
  if (!what.test(text)) throw new Error(`${path} does not contain ${what}`);
  writeFileSync(path, text.replace(what, by));
}

async function start(product: string, drainSeconds: number): Promise<Gateway> {
  const files = { 'settings.ts': settingsText(drainSeconds), 'answer.ts': "export const answer = 'one';" };
  // A library that is named in the environment would be that of every release.
  const env = { RINGWAY_LIBRARY: undefined } as unknown as Record<string, string>;
  gateway = await startGateway({ config, files, product, env });
  return gateway;
}
const health = async (running: Gateway) => (await (await fetch(`${running.adminUrl}/healthz`)).json()) as NodeHealth;

async function reload(product: string, running: Gateway) {
  const { RINGWAY_LIBRARY: _, ...env } = process.env;
  const cmd = [process.execPath, join(product, 'src', 'main.ts'), 'reload', '--admin', String(running.adminPort)];
  const child = Bun.spawn(cmd, { env, stdout: 'pipe', stderr: 'pipe' });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  return { code, out, err };
}

describe('an upgrade', () => {
  test('under load: a supervisor of the new release takes over, nothing is lost, and the process that is watched stays', async () => {
    const product = installCopy('load');
    const running = await start(product, 3);
    load = await startLoad({ port: running.port, keepAlive: 10, openEveryMs: 10, webSockets: 20, echoEveryMs: 20 });
    const before = await health(running);
    expect([before.version, before.pid]).toEqual([version, running.pid]);
    await installNext(product, abiVersion + 1);
    writeFileSync(join(running.folder, 'answer.ts'), "export const answer = 'two';");

    expect(await reload(product, running)).toMatchObject({
      code: 0,
      err: '',
      out: expect.stringContaining('generation 2 serves, led by another supervisor'),
    });
    const after = await health(running);
    expect([after.version, after.generation, after.reload.last]).toMatchObject([
      newVersion,
      2,
      { kind: 'reloaded', upgraded: true, request: 1 },
    ]);
    expect(after.pid).not.toBe(running.pid);
    expect(after.workers.some(({ pid }) => before.workers.some((old) => old.pid === pid))).toBe(false);
    await eventually('the old workers have ended', () => before.workers.every(({ pid }) => !isAlive(pid ?? 0)));
    expect(isAlive(running.pid)).toBe(true);

    // The next SIGHUP goes to the process that is watched, and is for the one that leads.
    writeFileSync(join(running.folder, 'answer.ts'), "export const answer = 'three';");
    running.kill('SIGHUP');
    await eventually('the next generation serves', async () => (await health(running)).generation === 3);
    expect((await health(running)).reload).toMatchObject({ requests: 2, last: { request: 2, upgraded: false } });
    await eventually('it is met', async () => (await (await fetch(running.url)).text()) === 'three');
    const tally = await load.stop();
    expectWhole(tally);
    expect(Object.keys(tally.bodies).sort()).toEqual(['one', 'three', 'two']);
    expect(Object.keys(tally.closes)).toEqual(['1001']);

    const { pid } = await health(running);
    running.kill('SIGTERM');
    expect(await running.exited).toBe(0);
    expect(isAlive(pid)).toBe(false);
  });

  test('waits for what must run once a node to be cleaned up before it begins in the new release', async () => {
    const product = installCopy('once');
    const running = await start(product, 60);
    const events = join(running.folder, 'events');
    const task = `
      import { appendFileSync } from 'node:fs';
      import { onOneWorker } from 'ringway';
      const note = (event: string) => appendFileSync('${events}', event + ' ' + process.pid + '\\n');
      onOneWorker(() => { note('begin'); return async () => { await Bun.sleep(2500); note('cleanup'); }; });
      export const answer = 'two';`;
    writeFileSync(join(running.folder, 'answer.ts'), task);
    expect((await reload(product, running)).code).toBe(0);
    const noted = () => (existsSync(events) ? readFileSync(events, 'utf8').trim().split('\n') : []);
    await eventually('a worker begins', () => noted().length === 1);
    await installNext(product, abiVersion + 1);
    expect((await reload(product, running)).code).toBe(0);
    await eventually('one of the new release begins', () => noted().filter((line) => line.startsWith('begin')).length === 2);
    expect(noted().map((line) => line.split(' ')[0])).toEqual(['begin', 'cleanup', 'begin']);
    running.kill('SIGTERM');
    expect(await running.exited).toBe(0);
    expect(noted().map((line) => line.split(' ')[0])).toEqual(['begin', 'cleanup', 'begin', 'cleanup']);
  });

  test('goes on with the sockets that stay, and drains both sides on SIGTERM', async () => {
    const product = installCopy('drain');
    const running = await start(product, 60);
    const path = join(running.folder, 'a.sock');
    writeFileSync(join(running.folder, 'settings.ts'), settingsText(60, { listen: [{ port: 0, host: '127.0.0.1' }, { unix: path }] }));
    expect((await reload(product, running)).code).toBe(0);
    const held = await Wire.connect(running.port);
    held.write('GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await eventually('the request is there', async () => (await running.metric('ringway_node_http_requests_total')) === 1);
    await installNext(product, abiVersion + 1);
    expect((await reload(product, running)).code).toBe(0);
    expect(existsSync(path)).toBe(true);
    const local = await fetch('http://localhost/', { unix: path });
    expect(await local.text()).toBe('one');
    const socket = await Wire.open(running.port, '/echo');
    running.kill('SIGTERM');
    expect(await socket.closeCode()).toBe(1001);
    socket.write(frame(opcode.close, closePayload(1001)));
    writeFileSync(join(running.folder, 'release'), '');
    expect(await held.head()).toContain('200');
    expect(await running.exited).toBe(0);
    expect(existsSync(path)).toBe(false);
  });

  test('to a release that cannot start changes nothing, and the next one can still be taken', async () => {
    const product = installCopy('broken');
    const running = await start(product, 3);
    const before = await health(running);
    // Half of it is there: the core does not fit the program.
    replaceIn(join(product, 'ffi', 'layout.ts'), /abiVersion = \d+/, `abiVersion = ${abiVersion + 1}`);
    const compiler = join(product, 'ffi', 'compile.sh');
    renameSync(compiler, `${compiler}.away`);
    expect((await reload(product, running)).code).toBe(1);
    renameSync(`${compiler}.away`, compiler);
    replaceIn(join(product, 'ffi', 'layout.ts'), /abiVersion = \d+/, `abiVersion = ${abiVersion}`);
    await installNext(product, abiVersion + 1);
    // It reads the config, and its workers do not start.
    writeFileSync(join(running.folder, 'answer.ts'), "if (process.env.RINGWAY_WORKER) process.exit(7);\nexport const answer = 'two';");
    expect(await reload(product, running)).toMatchObject({ code: 1, err: expect.stringContaining('ended with code 7') });
    const now = await health(running);
    expect([now.pid, now.generation, now.workers.map(({ pid }) => pid)]).toEqual([before.pid, 1, before.workers.map(({ pid }) => pid)]);
    expect(await (await fetch(running.url)).text()).toBe('one');
    writeFileSync(join(running.folder, 'answer.ts'), "export const answer = 'two';");
    expect((await reload(product, running)).code).toBe(0);
    const answers = async () => (await fetch(running.url, { headers: { connection: 'close' } })).text();
    await eventually('the new release answers', async () => (await answers()) === 'two');

    // And from there to another one.
    await installNext(product, abiVersion + 2);
    writeFileSync(join(running.folder, 'answer.ts'), "export const answer = 'three';");
    expect((await reload(product, running)).code).toBe(0);
    expect((await health(running)).version).toBe(`${abiVersion + 2}.0.0`);
    await eventually('the newest release answers', async () => (await answers()) === 'three');
    const { pid } = await health(running);
    running.kill('SIGTERM');
    expect(await running.exited).toBe(0);
    expect(isAlive(pid)).toBe(false);
  });

  test('whose supervisor is killed ends the process that is watched as well, and the other way round', async () => {
    const product = installCopy('killed');
    const running = await start(product, 3);
    await installNext(product, abiVersion + 1);
    expect((await reload(product, running)).code).toBe(0);
    const { pid, workers } = await health(running);
    process.kill(pid, 'SIGKILL');
    expect(await running.exited).toBe(137);
    await eventually('the workers are gone', () => workers.every((worker) => !isAlive(worker.pid ?? 0)));

    const product2 = installCopy('orphan');
    const second = await start(product2, 3);
    await installNext(product2, abiVersion + 1);
    expect((await reload(product2, second)).code).toBe(0);
    const left = await health(second);
    second.kill('SIGKILL');
    await eventually('all are gone', () => [left.pid, ...left.workers.map((worker) => worker.pid ?? 0)].every((each) => !isAlive(each)));
    await running.stop();
  });
});
