/**
 * The tutorial as it is read: a project as `ringway init` makes it, the blocks of the page put where they say, step by step, and the chat that
 * comes of it with real clients on two workers.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { initProject } from '../../src/cli/init-project.ts';
import { compile } from '../support/compiler.ts';
import { eventually } from '../support/eventually.ts';
import { readPage, writeBlock } from '../support/markdown.ts';
import { RunningProgram } from '../support/running-program.ts';

// Only ends a test that has failed.
setDefaultTimeout(120_000);

const root = join(import.meta.dir, '..', '..');
const { blocks } = readPage('docs/tutorial.md');
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';

let folder: string;
let project: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-tutorial-'));
  project = join(folder, 'chat');
  initProject(folder, 'chat', undefined);
  // As npm would lay them out.
  mkdirSync(join(project, 'node_modules'));
  symlinkSync(root, join(project, 'node_modules/ringway'));
  for (const name of ['hono', '@types', 'bun-types', 'typescript'])
    symlinkSync(join(root, 'node_modules', name), join(project, 'node_modules', name));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Do what a step says. */
function follow(step: string): void {
  const ofStep = blocks.filter(({ heading }) => heading === step);
  const files = ofStep.filter(({ path }) => path !== undefined);
  const commands = ofStep.filter(({ language }) => language === 'sh').flatMap(({ text }) => text.split('\n'));
  for (const block of files) writeBlock(project, block);
  for (const command of commands.filter((line) => line.startsWith('echo '))) Bun.spawnSync(['sh', '-c', command], { cwd: project });
}

class Chat {
  readonly program: RunningProgram;
  readonly port: number;
  readonly admin: string;

  private constructor(program: RunningProgram, port: number, admin: string) {
    this.program = program;
    this.port = port;
    this.admin = admin;
  }

  static async start(workers: number): Promise<Chat> {
    // As one starts it who has none of these set; .env is in the folder.
    const env = { ...process.env, SECRET: undefined, PORT: '0', ADMIN_PORT: '0', WORKERS: String(workers), NO_COLOR: '1' };
    const program = new RunningProgram([process.execPath, join(root, 'src/main.ts'), 'start'], { cwd: project, env });
    const said = await program.finds(/listening on http:\/\/localhost:(\d+)[^\n]*?admin (http:\/\/127\.0\.0\.1:\d+)/);
    return new Chat(program, Number(said[1]), said[2] ?? '');
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async stop(): Promise<void> {
    this.program.kill('SIGTERM');
    await Bun.sleep(50);
    this.program.kill('SIGTERM');
    await this.program.ended();
  }

  async workerPids(): Promise<number[]> {
    const { workers } = (await (await fetch(`${this.admin}/healthz`)).json()) as { workers: { pid: number }[] };
    return workers.map(({ pid }) => pid);
  }

  async cookieOf(name: string): Promise<string> {
    const response = await fetch(`${this.url}/login`, { method: 'POST', body: name });
    expect([response.status, await response.text()]).toEqual([200, name]);
    const cookie = response.headers.get('set-cookie') ?? '';
    expect(cookie).toMatch(/; HttpOnly; SameSite=Lax$/);
    return cookie.split(';')[0] ?? '';
  }

  /** Somebody in a room. */
  async enter(name: string, room: string): Promise<Person> {
    const person = new Person(this, await this.cookieOf(name));
    await person.opened;
    person.say({ type: 'subscribe', topic: room });
    return person;
  }
}

interface Heard {
  readonly topic: string;
  readonly data: { type: string; id: number; name: string; text: string; version: number; names: string[] };
}

/** What public/connection.js is, to the gateway. */
class Person {
  readonly heard: Heard[] = [];
  isClosed = false;
  readonly closed: Promise<number>;
  readonly opened: Promise<unknown>;
  readonly #socket: WebSocket;

  constructor(chat: Chat, cookie: string) {
    this.#socket = new WebSocket(`ws://127.0.0.1:${chat.port}/ws`, { headers: { cookie } } as never);
    this.#socket.onmessage = ({ data }) => this.heard.push(JSON.parse(String(data)));
    this.closed = new Promise((resolve) =>
      this.#socket.addEventListener('close', ({ code }) => {
        this.isClosed = true;
        resolve(code);
      }),
    );
    this.opened = new Promise((resolve) => this.#socket.addEventListener('open', resolve));
  }

  say(call: object | string): void {
    this.#socket.send(typeof call === 'string' ? call : JSON.stringify(call));
  }

  texts(room: string): string[] {
    return this.heard.filter(({ topic, data }) => topic === room && data.type === 'said').map(({ data }) => `${data.name}: ${data.text}`);
  }

  /** As the page shows them. */
  members(room: string): readonly string[] {
    const lists = this.heard.filter(({ topic, data }) => topic === room && data.type === 'members').map(({ data }) => data);
    return lists.toSorted((a, b) => b.version - a.version)[0]?.names ?? [];
  }

  leave(): void {
    this.#socket.close();
  }
}

const see = (persons: readonly Person[], room: string, names: readonly string[]) =>
  eventually(`all see ${names}`, () => persons.every((person) => String(person.members(room)) === String(names))).catch((error) => {
    throw new Error(`${error}: ${JSON.stringify(persons.map((person) => person.members(room)))}`);
  });

async function expectNoTypeErrors(): Promise<void> {
  expect(await compile([], project)).toEqual({ said: '', code: 0 });
}

describe.serial('the tutorial', () => {
  test('its steps are those that are followed here', () => {
    const headings = [...new Set(blocks.map(({ heading }) => heading))];
    expect(headings).toEqual([
      '1. A project',
      '2. Who is it?',
      '3. What was said',
      '4. Rooms',
      '5. A page',
      '6. Who is there',
      '7. All CPUs, and a crash',
    ]);
  });

  describe('up to the page', () => {
    let chat: Chat;
    beforeAll(async () => {
      for (const step of ['2. Who is it?', '3. What was said', '4. Rooms', '5. A page']) follow(step);
      chat = await Chat.start(2);
    });
    afterAll(() => chat?.stop());

    test('compiles, and keeps its secret and its data out of git', async () => {
      expect(readFileSync(join(project, '.env'), 'utf8')).toMatch(/^SECRET=[0-9a-f]{64}\n$/);
      expect(readFileSync(join(project, '.gitignore'), 'utf8').split('\n')).toEqual(expect.arrayContaining(['.env', 'data/']));
      await expectNoTypeErrors();
    });

    test('wants a name that is one', async () => {
      for (const name of ['', '<b>', 'x'.repeat(31)])
        expect([name, (await fetch(`${chat.url}/login`, { method: 'POST', body: name })).status]).toEqual([name, 400]);
    });

    test('closes who is not logged in, whoever signed the cookie, and what it does not understand, with 1008', async () => {
      const cookie = await chat.cookieOf('Eve');
      const forged = `${cookie.slice(0, -5)}AAAAA`;
      for (const wrong of ['', 'session=x', forged]) expect([wrong, await new Person(chat, wrong).closed]).toEqual([wrong, 1008]);
      for (const call of ['no JSON', 'null', '{}', '{"type":"subscribe","topic":"elsewhere"}']) {
        const person = new Person(chat, cookie);
        await person.opened;
        person.say(call);
        expect([call, await person.closed]).toEqual([call, 1008]);
      }
    });

    test('carries messages to everybody in the room and nobody else, with the name of the cookie; late ones get the last fifty', async () => {
      const persons = await Promise.all(['Ann', 'Bob', 'Cem', 'Dan', 'Eva', 'Fay'].map((name) => chat.enter(name, 'room/tea')));
      const stranger = await chat.enter('Gus', 'room/other');
      const [ann] = persons as [Person];
      stranger.say({ type: 'publish', topic: 'room/tea', data: { text: 'not heard' } });
      stranger.say({ type: 'publish', topic: 'room/other', data: { text: 'here' } });
      await eventually('the other room hears it', () => stranger.texts('room/other').length === 1);
      // Whoever is subscribed hears this; until then it is said again.
      await eventually('all hear it', async () => {
        ann.say({ type: 'publish', topic: 'room/tea', data: { text: 'hello', name: 'Bob' } });
        await Bun.sleep(100);
        return persons.every((person) => person.texts('room/tea').length > 0);
      });
      for (const person of persons) expect(new Set(person.texts('room/tea'))).toEqual(new Set(['Ann: hello']));
      for (let index = 0; index < 60; index++) {
        // Twenty a second, forty at once.
        if (index === 30) await Bun.sleep(1500);
        ann.say({ type: 'publish', topic: 'room/tea', data: { text: `${index}` } });
      }
      await eventually('the last is heard', () => ann.texts('room/tea').includes('Ann: 59'));
      const late = await chat.enter('Hal', 'room/tea');
      await eventually('the late one has it', () => late.texts('room/tea').includes('Ann: 59'));
      expect(late.texts('room/tea')).toEqual(Array.from({ length: 50 }, (_, index) => `Ann: ${index + 10}`));
    });
  });

  describe('to its end', () => {
    let chat: Chat;
    beforeAll(async () => {
      follow('6. Who is there');
      chat = await Chat.start(2);
    });
    afterAll(() => chat?.stop());

    test('compiles', expectNoTypeErrors);

    test('shows who is there, over both workers, also when one of them is killed', async () => {
      const room = 'room/lobby';
      const names = Array.from({ length: 16 }, (_, index) => `guest ${10 + index}`);
      const persons = await Promise.all(names.map((name) => chat.enter(name, room)));
      await see(persons, room, names);
      // A second window of the same name is not a second member, and nobody leaves with it.
      const twice = await chat.enter('guest 10', room);
      await see([...persons, twice], room, names);
      twice.leave();
      await twice.closed;
      persons.at(-1)?.leave();
      const stayed = persons.slice(0, -1);
      await see(stayed, room, names.slice(0, -1));

      process.kill((await chat.workerPids())[0] ?? 0, 'SIGKILL');
      // Those whose connections it had; of sixteen some are on either worker.
      const survivors = () => stayed.filter((person) => !person.isClosed);
      await eventually('the rest see the rest', () => {
        const left = names.filter((_, index) => stayed[index]?.isClosed === false);
        return left.length < stayed.length && survivors().every((person) => String(person.members(room)) === String(left));
      });
      expect(survivors().length).toBeGreaterThan(0);
    });

    test('leaves nobody behind who came and went at once', async () => {
      const watcher = await chat.enter('watcher', 'room/hall');
      for (let round = 0; round < 5; round++) {
        const passers = await Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map((name) => chat.enter(name, 'room/hall')));
        for (const [index, person] of passers.entries())
          index % 2 === 0 ? person.leave() : person.say({ type: 'unsubscribe', topic: 'room/hall' });
        await see([watcher], 'room/hall', ['watcher']);
        for (const person of passers) person.leave();
      }
    });

    test.skipIf(!existsSync(executablePath))('in a browser: log in, talk, see each other', async () => {
      const browser = await chromium.launch({
        executablePath,
        args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'],
      });
      try {
        const problems: string[] = [];
        const pages = await Promise.all(
          ['Zoë', 'Yan'].map(async (name) => {
            // Each with cookies of its own.
            const page = await (await browser.newContext()).newPage();
            page.on('pageerror', (error) => problems.push(String(error)));
            await page.goto(`${chat.url}/#tea`);
            await page.locator('#name').fill(name);
            await page.locator('#login button').click();
            await page.locator('#state', { hasText: 'open' }).waitFor();
            return page;
          }),
        );
        for (const page of pages) await page.locator('#members', { hasText: 'Yan, Zoë' }).waitFor();
        await pages[0]?.locator('#text').fill('good evening');
        await pages[0]?.locator('#say button').click();
        for (const page of pages) await page.locator('li', { hasText: 'Zoë: good evening' }).waitFor();
        await pages[1]?.reload();
        await pages[1]?.locator('li', { hasText: 'Zoë: good evening' }).waitFor();
        await pages[0]?.close();
        await pages[1]?.locator('#members', { hasText: /^Yan$/ }).waitFor();
        expect(problems).toEqual([]);
      } finally {
        await browser.close();
      }
    });
  });
});

test('without a secret it says what to do, and does not start', async () => {
  writeFileSync(join(project, '.env'), '');
  const env = { ...process.env, SECRET: undefined, PORT: '0', ADMIN_PORT: '0' };
  const program = new RunningProgram([process.execPath, join(root, 'src/main.ts'), 'start'], { cwd: project, env });
  expect(await program.ended()).toBe(78);
  expect(program.output()).toContain('SECRET is missing: put SECRET=... into the file .env');
});
