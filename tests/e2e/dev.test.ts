/** `ringway dev` as one works with it: files are edited while it runs. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { cpSync, mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { ringway, watchRingway } from '../support/ringway-command.ts';
import type { RunningProgram } from '../support/running-program.ts';

const config = (fetch: string, more = '') => `
  import { defineGateway } from 'ringway';
  import { greeting } from './lib/greeting.ts';
  ${more}
  export default defineGateway({
    fetch: ${fetch},
    admin: false,
    listen: { port: 1, host: '127.0.0.1' },
    websocket: { '/echo': { message: (socket, message) => { socket.send(greeting + message.text()); } } },
  });
`;
const greets = '() => new Response(greeting)';

/** A test that fails comes to no `stop`. */
const started: RunningProgram[] = [];
afterAll(() => Promise.all(started.map((program) => program.stop())));

class Project {
  readonly folder = mkdtempSync(join(tmpdir(), 'ringway-dev-'));
  readonly #program: RunningProgram;

  constructor(files: Readonly<Record<string, string>>, words: readonly string[] = []) {
    mkdirSync(join(this.folder, 'lib'));
    for (const [name, text] of Object.entries(files)) this.write(name, text);
    this.#program = watchRingway(['dev', ...words], { cwd: this.folder, env: { FORCE_COLOR: '0' } });
    started.push(this.#program);
  }

  /** Everything that it has written so far. */
  get output(): string {
    return this.#program.output();
  }

  write(name: string, text: string): void {
    writeFileSync(join(this.folder, name), text);
  }

  /** As editors do that write another file and rename it into place. */
  replace(name: string, text: string): void {
    this.write(`${name}~`, text);
    renameSync(join(this.folder, `${name}~`), join(this.folder, name));
  }

  async says(text: string | RegExp, from = 0): Promise<number> {
    const isSaid = () => {
      const said = this.output.slice(from);
      return typeof text === 'string' ? said.includes(text) : text.test(said);
    };
    await eventually(`it says ${text}`, isSaid).catch((error) => {
      throw new Error(`${error}\n${this.output}`);
    });
    return this.output.length;
  }

  async url(): Promise<string> {
    const address = await this.#program.says(/listening on http:\/\/(\S+?) /);
    return `http://${address}`;
  }

  get pid(): number {
    return this.#program.pid;
  }

  async stop(): Promise<number> {
    this.#program.kill('SIGINT');
    const exitCode = await this.#program.ended();
    rmSync(this.folder, { recursive: true, force: true });
    return exitCode;
  }
}

const serves = (url: string, text: string) =>
  eventually(`${text} is served`, async () => (await (await fetch(url).catch(() => undefined))?.text()) === text);

describe('ringway dev', () => {
  let project: Project;
  let url: string;
  beforeAll(async () => {
    const files = {
      'gateway.config.ts': config(greets),
      'lib/greeting.ts': `export { greeting } from './words.ts';`,
      'lib/words.ts': `export const greeting = 'one';`,
    };
    project = new Project(files, ['--port', '0']);
    url = await project.url();
  });
  afterAll(async () => {
    expect(await project.stop()).toBe(0);
  });

  test('serves on the port of the command line with one worker, and writes a line for each request', async () => {
    await serves(url, 'one');
    expect(new URL(url).port).not.toBe('1');
    expect(project.output).toContain('(1 worker');
    await project.says('GET /');
    await project.says('watching the config and 2 files that it imports');
  });

  test('serves a change of what is imported, however it is written, and says how long that took', async () => {
    project.write('lib/words.ts', `export const greeting = 'two';`);
    await serves(url, 'two');
    await project.says(/lib\/words\.ts changed: reloaded in \d+ ms/);
    project.replace('lib/words.ts', `export const greeting = 'three';`);
    await serves(url, 'three');
    // What a reload does step by step is for operators.
    expect(project.output).not.toContain('reading the config');
  });

  test('watches what is imported from now on', async () => {
    project.write('lib/more.ts', `export const more = '!';`);
    project.write('gateway.config.ts', config('() => new Response(greeting + more)', `import { more } from './lib/more.ts';`));
    await serves(url, 'three!');
    project.write('lib/more.ts', `export const more = '?';`);
    await serves(url, 'three?');
  });

  test('a WebSocket ends with its code, and the next one meets the new one', async () => {
    const open = async () => {
      const socket = new WebSocket(`${url.replace('http', 'ws')}/echo`);
      await new Promise((resolve, reject) => {
        socket.onopen = resolve;
        socket.onerror = reject;
      });
      return socket;
    };
    const said = (socket: WebSocket) =>
      new Promise((resolve) => socket.addEventListener('message', ({ data }) => resolve(data), { once: true }));
    const first = await open();
    const closed = new Promise<CloseEvent>((resolve) => first.addEventListener('close', resolve));
    let answer = said(first);
    first.send(' a');
    expect(await answer).toBe('three a');
    project.write('lib/words.ts', `export const greeting = 'four';`);
    expect((await closed).code).toBe(1001);
    await serves(url, 'four?');
    const second = await open();
    answer = said(second);
    second.send(' b');
    expect(await answer).toBe('four b');
    second.close();
  });

  test('a file that is half written, an unknown option, and a config that throws change nothing, and are told of', async () => {
    let from = project.output.length;
    project.write('lib/words.ts', `export const greeting = 'fi`);
    from = await project.says('lib/words.ts changed: not reloaded; what was served before is still served', from);
    expect(project.output).toContain('syntax error');
    await serves(url, 'four?');
    project.write('lib/words.ts', `export const greeting = 'five';`);
    await serves(url, 'five?');
    project.write('gateway.config.ts', config(`${greets}, htp: {}`));
    from = await project.says('did you mean http?', from);
    project.write('gateway.config.ts', config(greets, `throw new Error('at random');`));
    from = await project.says('threw while it was loaded: at random', from);
    await serves(url, 'five?');
    project.write('gateway.config.ts', config(greets));
    await serves(url, 'five');
  });

  test('an import that leads nowhere is waited for', async () => {
    const from = project.output.length;
    project.write('gateway.config.ts', config('() => new Response(late)', `import { late } from './lib/late.ts';`));
    await project.says('not reloaded', from);
    project.write('lib/late.ts', `export const late = 'late';`);
    await serves(url, 'late');
  });

  test('an import that leads nowhere is waited for once, and then watched', async () => {
    project.write('lib/late.ts', `export const late = 'later';`);
    await serves(url, 'later');
  });

  test('a folder that is removed and made again, or put in the place of another, is watched on', async () => {
    rmSync(join(project.folder, 'lib'), { recursive: true });
    mkdirSync(join(project.folder, 'lib'));
    project.write('lib/greeting.ts', `export { greeting } from './words.ts';`);
    project.write('lib/words.ts', `export const greeting = 'five';`);
    project.write('lib/late.ts', `export const late = 'made again';`);
    await serves(url, 'made again');
    project.write('lib/late.ts', `export const late = 'and again';`);
    await serves(url, 'and again');
    cpSync(join(project.folder, 'lib'), join(project.folder, 'other'), { recursive: true });
    project.write('other/late.ts', `export const late = 'in its place';`);
    renameSync(join(project.folder, 'lib'), join(project.folder, 'before'));
    renameSync(join(project.folder, 'other'), join(project.folder, 'lib'));
    await serves(url, 'in its place');
  });

  test('a config that never comes to an end while it is loaded, or starts, is given up when the cure is saved', async () => {
    for (const more of ['', ', onStart']) {
      const hang = `{ console.log('hangs here'); return new Promise(() => {}); }`;
      let from = project.output.length;
      project.write('gateway.config.ts', config(greets + more, more === '' ? `await (() => ${hang})();` : `function onStart() ${hang}`));
      from = await project.says('hangs here', from);
      project.write('gateway.config.ts', config(`() => new Response('cured of ${more}')`));
      await serves(url, `cured of ${more}`);
      await project.says('a file has changed again', from);
    }
  });

  test('a file that is saved as it was is no change', async () => {
    const from = project.output.length;
    project.write('gateway.config.ts', config(greets));
    await serves(url, 'five');
    const length = await project.says('gateway.config.ts changed: reloaded', from);
    project.write('lib/words.ts', `export const greeting = 'five';`);
    project.write('lib/words.ts', `export const greeting = 'six';`);
    await serves(url, 'six');
    expect(project.output.slice(length).match(/changed/g)).toHaveLength(1);
  });
});

test('a config behind a link is watched, with what it imports, where it lies', async () => {
  const files = { 'lib/gateway.config.ts': config(greets).replace('./lib/', './'), 'lib/greeting.ts': `export const greeting = 'one';` };
  const place = mkdtempSync(join(tmpdir(), 'ringway-dev-link-'));
  symlinkSync('releases', join(place, 'current'));
  const project = new Project(files, [join(place, 'current', 'gateway.config.ts'), '--port', '0']);
  try {
    mkdirSync(join(place, 'releases'));
    symlinkSync(join(project.folder, 'lib', 'gateway.config.ts'), join(place, 'releases', 'gateway.config.ts'));
    const url = await project.url();
    await serves(url, 'one');
    project.write('lib/greeting.ts', `export const greeting = 'two';`);
    await serves(url, 'two');
    project.write('lib/gateway.config.ts', config(`() => new Response('three')`).replace('./lib/', './'));
    await serves(url, 'three');
    // Another release takes its place.
    mkdirSync(join(place, 'next'));
    writeFileSync(join(place, 'next', 'greeting.ts'), `export const greeting = 'four';`);
    writeFileSync(join(place, 'next', 'gateway.config.ts'), config(greets).replace('./lib/', './'));
    symlinkSync('next', join(place, 'new'));
    renameSync(join(place, 'new'), join(place, 'current'));
    await serves(url, 'four');
  } finally {
    await project.stop();
    rmSync(place, { recursive: true, force: true });
  }
});

test('a config that hangs at the start is given up when the cure is saved', async () => {
  const hangs = (onStart: string) => config(`${greets}, onStart: ${onStart}`);
  const files = {
    'gateway.config.ts': config(greets, 'await new Promise(() => {});'),
    'lib/greeting.ts': `export const greeting = 'hello';`,
  };
  const project = new Project(files, ['--port', '0']);
  await Bun.sleep(500);
  project.write('gateway.config.ts', hangs('() => new Promise(() => {})'));
  await project.says('watching the config');
  await Bun.sleep(500);
  project.write('gateway.config.ts', hangs('() => {}'));
  await serves(await project.url(), 'hello');
  expect(await project.stop()).toBe(0);
});

test('a config with mistakes at the start is waited for', async () => {
  const project = new Project({ 'other.ts': config(`${greets}, htp: {}`), 'lib/greeting.ts': `export const greeting = 'hello';` }, [
    'other.ts',
    '--port',
    '0',
  ]);
  await project.says('did you mean http?');
  await project.says('waiting for a change');
  project.write('other.ts', config(greets));
  await serves(await project.url(), 'hello');
  expect(await project.stop()).toBe(0);
});

test('a second project on the same port ends with a line that says what to do', async () => {
  const files = { 'gateway.config.ts': config(greets), 'lib/greeting.ts': `export const greeting = 'hello';` };
  const project = new Project(files, ['--port', '0']);
  const { port } = new URL(await project.url());
  const { exitCode, err } = await ringway(['dev', '--port', port], { cwd: project.folder });
  expect(exitCode).toBe(1);
  expect(err).toContain(port);
  expect(err).toContain('another process listens there already');
  expect(await project.stop()).toBe(0);
});

test('mistakes of the command line', async () => {
  for (const [words, said] of [
    [['dev', '--port', 'x'], "--port is 'x'; write an integer from 0 to 65535"],
    [['dev', 'a.ts', '-c', 'b.ts'], "two config files, 'a.ts' and 'b.ts': write one of them"],
    [['start', 'a.ts', 'b.ts'], "'b.ts' is one word too many"],
  ] as const) {
    const { exitCode, err } = await ringway(words);
    expect([words, exitCode, err]).toEqual([words, 64, expect.stringContaining(said)]);
  }
  const folder = mkdtempSync(join(tmpdir(), 'ringway-dev-'));
  writeFileSync(join(folder, 'unix.ts'), `export default { fetch: () => new Response(), listen: { unix: 'x.sock' } };`);
  const { exitCode, err } = await ringway(['start', join(folder, 'unix.ts'), '--port', '0']);
  expect([exitCode, err]).toEqual([
    78,
    expect.stringContaining('listen: has no address with a port, which --port is for; leave --port out'),
  ]);
  rmSync(folder, { recursive: true, force: true });
});

test('what ringway init makes is served as it is, and its rooms work', async () => {
  const parent = mkdtempSync(join(tmpdir(), 'ringway-init-'));
  const made = await ringway(['init', 'app', '--skip-install'], { cwd: parent });
  expect([made.exitCode, made.out]).toEqual([0, expect.stringContaining('cd app')]);
  const program = watchRingway(['dev', '--port', '0'], { cwd: join(parent, 'app'), env: { ADMIN_PORT: '0' } });
  started.push(program);
  const port = await program.says(/listening on http:\/\/\S+?:(\d+) /);
  const url = `http://127.0.0.1:${port}`;
  expect(await (await fetch(url)).text()).toContain('<script type="module">');
  expect((await fetch(`${url}/connection.js`)).headers.get('content-type')).toContain('javascript');
  const heard: unknown[] = [];
  const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`);
  socket.onopen = () => socket.send(JSON.stringify({ type: 'subscribe', topic: 'chat/lobby' }));
  socket.onmessage = ({ data }) => void heard.push(JSON.parse(data));
  await eventually('it hears what comes over HTTP', async () => {
    await fetch(`${url}/say`, { method: 'POST', body: 'hello' });
    return heard.length > 0;
  });
  expect(heard[0]).toEqual({ topic: 'chat/lobby', data: { from: 'HTTP', text: 'hello' } });
  const refused = new WebSocket(`${url.replace('http', 'ws')}/ws`);
  refused.onopen = () => refused.send(JSON.stringify({ type: 'subscribe', topic: 'elsewhere' }));
  const { code } = await new Promise<CloseEvent>((resolve) => refused.addEventListener('close', resolve));
  expect(code).toBe(1008);
  socket.close();
  program.kill('SIGINT');
  expect(await program.ended()).toBe(0);
  rmSync(parent, { recursive: true, force: true });
});
