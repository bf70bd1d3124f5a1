/** docs/uws.md: its program runs as it stands there. (Its other blocks are checked with those of all pages, in docs.test.ts.) */
import { afterAll, expect, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { patienceMs } from '../../support/eventually.ts';
import { freePort } from '../../support/free-port.ts';

const root = resolve(import.meta.dir, '../../..');
const folder = mkdtempSync(join(tmpdir(), 'ringway-docs-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** ret: false when the program has ended instead: another process may have taken the port meanwhile */
async function answers(program: Bun.Subprocess, url: string): Promise<boolean> {
  while (program.exitCode === null) {
    const response = await fetch(url).catch(() => undefined);
    if (response !== undefined) return true;
    await Bun.sleep(20);
  }
  return false;
}

async function start(file: string): Promise<{ program: Bun.Subprocess; port: number }> {
  for (let attempt = 0; attempt < 5; attempt++) {
    const port = freePort();
    const program = Bun.spawn([process.execPath, '--preload', join(root, 'src/register.ts'), file], {
      env: { ...process.env, PORT: String(port) },
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    if (await answers(program, `http://127.0.0.1:${port}/hello`)) return { program, port };
  }
  throw new Error('the program ends instead of listening');
}

async function open(port: number, path: string): Promise<WebSocket> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`);
  await new Promise((done, failed) => {
    socket.onopen = done;
    socket.onerror = failed;
  });
  return socket;
}

test(
  'the program on the page runs unedited, and does what it says',
  async () => {
    const page = readFileSync(join(root, 'docs/uws.md'), 'utf8');
    const text = /^```js\n([\s\S]*?)^```/m.exec(page)?.[1] ?? '';
    expect(text).toContain("from 'uWebSockets.js'");
    const file = join(folder, 'app.js');
    writeFileSync(file, text);
    const { program, port } = await start(file);
    try {
      expect(await (await fetch(`http://127.0.0.1:${port}/hello`)).text()).toBe('Hello');
      const [speaker, listener, stranger] = await Promise.all(['/room/a', '/room/a', '/room/b'].map((path) => open(port, path)));
      const heard: string[] = [];
      for (const [who, socket] of Object.entries({ speaker, listener, stranger }))
        socket?.addEventListener('message', ({ data }) => heard.push(`${who}: ${data}`));
      const told = new Promise((done) => listener?.addEventListener('message', done));
      speaker?.send('to the room');
      await told;
      expect(heard).toEqual(['listener: to the room']);
      for (const socket of [speaker, listener, stranger]) socket?.close();
    } finally {
      program.kill('SIGKILL');
      await program.exited;
    }
  },
  patienceMs,
);
