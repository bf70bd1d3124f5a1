/** `ringway init NAME`: what it writes compiles, and is refused where it would overwrite; its client module comes back. */
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Server, ServerWebSocket } from 'bun';
import { init } from '../../../src/cli/init.ts';
import { initProject } from '../../../src/cli/init-project.ts';
import { compile } from '../../support/compiler.ts';
import { eventually } from '../../support/eventually.ts';

const root = resolve(import.meta.dir, '../../..');
// Inside the tree, so that packages resolve; ffi/build is ignored by git.
mkdirSync(join(root, 'ffi/build'), { recursive: true });
const folder = mkdtempSync(join(root, 'ffi/build/init-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('ringway init', () => {
  const command = process.env.npm_command;
  afterEach(() => {
    if (command === undefined) delete process.env.npm_command;
    else process.env.npm_command = command;
  });

  test('names the command that starts it as this one was given: by npx where it came through that', () => {
    delete process.env.npm_command;
    expect(init(folder, true)).toContain("Now run 'ringway start'");
    process.env.npm_command = 'exec';
    expect(init(folder, true)).toContain("Now run 'npx ringway start'");
  });
});

describe('ringway init NAME', () => {
  test('writes a project whose types resolve', async () => {
    const said = initProject(folder, 'My App', undefined);
    expect(said).toContain('  cd My App\n  npm install\n  npm run dev');
    const project = join(folder, 'My App');
    expect(readdirSync(project).sort()).toEqual([
      '.dockerignore',
      '.gitignore',
      'Dockerfile',
      'gateway.config.ts',
      'package.json',
      'public',
      'tsconfig.json',
    ]);
    const manifest = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8'));
    expect(manifest.name).toBe('my-app');
    expect(resolve(project, manifest.dependencies.ringway.replace('file:', ''))).toBe(root);
    // As npm would lay them out.
    mkdirSync(join(project, 'node_modules'));
    symlinkSync(root, join(project, 'node_modules/ringway'));
    for (const name of ['hono', '@types', 'bun-types']) symlinkSync(join(root, 'node_modules', name), join(project, 'node_modules', name));
    expect(await compile([], project)).toEqual({ said: '', code: 0 });
  }, 60_000);

  test('says so when packages were installed, and when they were not', () => {
    expect(initProject(folder, 'installed', () => true)).not.toContain('npm install');
    expect(initProject(folder, 'not-installed', () => false)).toContain('could not be installed');
  });

  test('replaces nothing', () => {
    mkdirSync(join(folder, 'full'));
    writeFileSync(join(folder, 'full/mine.txt'), '');
    expect(() => initProject(folder, 'full', undefined)).toThrow('full is not empty; write another name, or empty it first');
    expect(readdirSync(join(folder, 'full'))).toEqual(['mine.txt']);
    writeFileSync(join(folder, 'a-file'), '');
    expect(() => initProject(folder, 'a-file/project', undefined)).toThrow(/cannot make .*a-file\/project: is a file, or lies in one/);
    mkdirSync(join(folder, 'empty'));
    initProject(folder, 'empty', undefined);
    expect(existsSync(join(folder, 'empty/gateway.config.ts'))).toBe(true);
  });
});

/** The module is for browsers: its types are in its comments. */
interface Client {
  new (
    path: string,
    options?: { onState?: (state: string) => void },
  ): {
    readonly state: string;
    subscribe(topic: string, listener: (data: unknown) => void): () => void;
    publish(topic: string, data: unknown): boolean;
    close(): void;
  };
}
const clientModule = join(root, 'packaging/project/public/connection.js');
const client = async (): Promise<Client> => (await import(clientModule)).Connection;

describe('connection.js', () => {
  let server: Server<undefined>;
  let sockets: ServerWebSocket<undefined>[];
  let calls: unknown[];
  let closesWith: number | undefined;
  const before = Object.getOwnPropertyDescriptor(globalThis, 'location');
  const serve = (port: number) =>
    Bun.serve({
      port,
      hostname: '127.0.0.1',
      fetch: (request, own) => (own.upgrade(request) ? undefined : new Response()),
      websocket: {
        open(socket) {
          sockets.push(socket);
          if (closesWith !== undefined) socket.close(closesWith);
        },
        message: (_, text) => void calls.push(JSON.parse(String(text))),
      },
    });
  beforeEach(() => {
    [sockets, calls, closesWith] = [[], [], undefined];
    server = serve(0);
    Object.defineProperty(globalThis, 'location', { value: { href: `http://127.0.0.1:${server.port}/` }, configurable: true });
  });
  afterEach(async () => {
    await server.stop(true);
    if (before === undefined) Reflect.deleteProperty(globalThis, 'location');
    else Object.defineProperty(globalThis, 'location', before);
  });

  test('subscribes, hears, publishes, and comes back to what it was subscribed to', async () => {
    const Connection = await client();
    const states: string[] = [];
    const heard: unknown[] = [];
    const connection = new Connection('/ws', { onState: (state) => void states.push(state) });
    expect(connection.publish('a', 1)).toBe(false);
    const stop = connection.subscribe('a', (data) => void heard.push(data));
    await eventually('it subscribes', () => calls.length === 1);
    expect(connection.publish('a', { text: 'x' })).toBe(true);
    await eventually('it publishes', () => calls.length === 2);
    expect(calls).toEqual([
      { type: 'subscribe', topic: 'a' },
      { type: 'publish', topic: 'a', data: { text: 'x' } },
    ]);
    sockets[0]?.send(JSON.stringify({ topic: 'a', data: 'one' }));
    sockets[0]?.send(JSON.stringify({ topic: 'b', data: 'for nobody' }));
    await eventually('it hears', () => heard.length === 1);
    sockets[0]?.close(1001);
    await eventually('it comes back', () => calls.length === 3);
    expect(calls[2]).toEqual({ type: 'subscribe', topic: 'a' });
    // While the gateway is away it goes on trying.
    const { port } = server;
    await server.stop(true);
    const attempts = () => states.filter((state) => state === 'waiting').length;
    await eventually('it tries again and again', () => attempts() >= 3);
    server = serve(port as number);
    await eventually('it subscribes once more', () => calls.length === 4);
    stop();
    await eventually('it unsubscribes', () => calls.length === 5);
    expect(calls[4]).toEqual({ type: 'unsubscribe', topic: 'a' });
    connection.close();
    await eventually('the gateway sees it go', () => sockets.at(-1)?.readyState === 3);
    expect(states.slice(0, 5)).toEqual(['connecting', 'open', 'waiting', 'connecting', 'open']);
    expect(states.at(-1)).toBe('closed');
    expect(heard).toEqual(['one']);
  });

  test('does not come back when the gateway does not want it', async () => {
    const Connection = await client();
    closesWith = 1008;
    const connection = new Connection('/ws');
    await eventually('it gives up', () => connection.state === 'closed');
    expect(sockets).toHaveLength(1);
  });
});
