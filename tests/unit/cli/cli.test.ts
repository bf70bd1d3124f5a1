import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runArguments } from '../../../src/cli/arguments.ts';
import { runCli } from '../../../src/cli/cli.ts';
import { commandHelp } from '../../../src/cli/help.ts';
import { starterConfig } from '../../../src/cli/starter.ts';
import { defaults } from '../../../src/config/defaults.ts';
import { version } from '../../../src/version.ts';

const main = fileURLToPath(new URL('../../../src/main.ts', import.meta.url));
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-cli-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** The real command, in a folder without node_modules. */
async function ringway(...args: string[]): Promise<{ exitCode: number; out: string; err: string }> {
  const { PORT, ADMIN_PORT, WORKERS, ...env } = process.env;
  const command = Bun.spawn({ cmd: [process.execPath, '--no-install', main, ...args], cwd: folder, env, stdout: 'pipe', stderr: 'pipe' });
  const [out, err, exitCode] = await Promise.all([command.stdout.text(), command.stderr.text(), command.exited]);
  return { exitCode, out, err };
}
function write(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return name;
}

describe('the command line', () => {
  test('--version', async () => {
    expect(await ringway('--version')).toEqual({ exitCode: 0, out: `${version}\n`, err: '' });
  });

  test('--help lists the commands, without colours where they are not seen', async () => {
    const { exitCode, out } = await ringway('--help');
    expect(exitCode).toBe(0);
    for (const word of ['start', 'run', 'check', 'init']) expect(out).toContain(word);
    expect(out).not.toContain('\u001b');
  });

  test('a command explains itself', async () => {
    const { exitCode, out } = await ringway('start', '--help');
    expect(exitCode).toBe(0);
    expect(out).toContain('--workers');
  });

  test('help of a command has examples, which the command takes, and a page that is there', async () => {
    const docs = join(import.meta.dir, '../../../docs');
    for (const [name, { examples, page }] of Object.entries(commandHelp)) {
      const said: string[] = [];
      const terminal = { out: (text: string) => void said.push(text), err: (text: string) => void said.push(text) };
      expect([name, await runCli([name, '--help'], terminal)]).toEqual([name, 0]);
      const text = said.join('\n');
      for (const [words] of examples) {
        expect(text).toContain(`ringway ${words}`);
        expect(words.split(' ')[0]).toBe(name);
        for (const [option] of words.matchAll(/--[a-z-]+(?= |$)/g)) {
          // Behind a program all is its own.
          if (!/^run .*\.js .*/.test(words)) expect([words, text.includes(option)]).toEqual([words, true]);
        }
      }
      const [file = '', anchor] = page.split('#');
      expect(text).toContain(join(docs, page));
      const headings = [...readFileSync(join(docs, file), 'utf8').matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
        heading
          .toLowerCase()
          .replace(/[^\p{L}\p{N}\s_-]/gu, '')
          .replaceAll(' ', '-'),
      );
      if (anchor !== undefined) expect([page, headings.includes(anchor)]).toEqual([page, true]);
    }
    const { out } = await ringway('--help');
    for (const [, name = ''] of out.matchAll(/^ {2,}([a-z]+) {2,}\S/gm)) expect(Object.keys(commandHelp)).toContain(name);
  });

  test('on a system that is not Linux it says what to do, and judges a config all the same', async () => {
    const said = { out: [] as string[], err: [] as string[] };
    const terminal = { out: (text: string) => void said.out.push(text), err: (text: string) => void said.err.push(text) };
    for (const platform of ['darwin', 'win32']) {
      for (const command of ['dev', 'start', 'run', 'doctor', 'top']) {
        said.err.length = 0;
        expect([command, await runCli([command, 'x'], terminal, platform)]).toEqual([command, 1]);
        expect(said.err.join()).toContain(`'ringway ${command}' runs on Linux only`);
        expect(said.err.join()).toContain('docker run --rm -it -p 8080:8080 -v "$PWD":/app ringway');
        expect(said.err.join().includes('WSL 2')).toBe(platform === 'win32');
      }
      write('elsewhere.config.ts', 'export default { fetch: () => new Response() };');
      said.err.length = 0;
      expect(await runCli(['check', '-c', join(folder, 'elsewhere.config.ts')], terminal, platform)).toBe(0);
      expect(said.err.join()).toContain('the config can be judged here, but not served: On ');
    }
  });

  test('completion knows every command, every option, and which of them take files', async () => {
    const script = (await ringway('completion', 'bash')).out;
    const complete = (...words: string[]) => {
      const line = `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ringway; printf '%s\\n' "\${COMPREPLY[@]}"`;
      return Bun.spawnSync(['bash', '-c', line, 'bash', ...words], { cwd: folder })
        .stdout.toString()
        .split('\n')
        .filter(Boolean);
    };
    expect(complete('ringway', 'st')).toEqual(['start']);
    expect(complete('ringway', '')).toEqual(expect.arrayContaining(Object.keys(commandHelp)));
    expect(complete('ringway', 'check', '--')).toEqual(['--config', '--json', '--help']);
    expect(complete('ringway', 'completion', '')).toEqual(['bash', 'zsh', 'fish']);
    write('found.config.ts', '');
    expect(complete('ringway', 'start', '-c', 'fou')).toEqual(['found.config.ts']);
    expect((await ringway('completion', 'tcsh')).err).toContain("Write 'ringway completion bash|zsh|fish'");
  });

  test.skipIf(Bun.which('fish') === null)('completion of fish', async () => {
    const script = (await ringway('completion', 'fish')).out;
    const complete = (line: string) => {
      const { stdout } = Bun.spawnSync(['fish', '--no-config', '-c', `${script}\ncomplete --do-complete '${line}'`], {
        cwd: folder,
        env: { ...process.env, HOME: folder },
      });
      return stdout
        .toString()
        .split('\n')
        .filter(Boolean)
        .map((one) => one.split('\t')[0]);
    };
    expect(complete('ringway st')).toEqual(['start']);
    expect(complete('ringway check --j')).toEqual(['--json']);
    expect(complete('ringway completion ')).toEqual(['bash', 'fish', 'zsh']);
  });

  test.skipIf(Bun.which('zsh') === null)('completion of zsh', async () => {
    const script = (await ringway('completion', 'zsh')).out;
    // What it would offer is written down instead of shown.
    const stubs = `compdef() { :; }; _files() { print files; }; _describe() { print -l -- "\${(@P)2}"; }`;
    const complete = (...words: string[]) => {
      const line = `${stubs}\neval "$1"; shift; words=("$@"); CURRENT=$#; _ringway`;
      return Bun.spawnSync(['zsh', '-f', '-c', line, 'zsh', script, ...words]).stdout.toString();
    };
    expect(complete('ringway', 'st')).toContain('start:Run the gateway\n');
    expect(complete('ringway', 'check', '--')).toMatch(/^--json:Print JSON$/m);
    expect(complete('ringway', 'check', '--')).toMatch(/^files$/m);
    expect(complete('ringway', 'completion', '')).toContain('fish:for fish\n');
  });

  test('check says what policies of topics do, and which paths stream them', async () => {
    write(
      'topics.config.ts',
      `export default {
        topics: {
          'chat/:room': { history: { size: 100, seconds: 300 }, presence: true, authorize: () => true },
          'news/*': { history: { size: 5, seconds: 60 }, recover: false },
          'news/drafts': { history: false },
        },
        sse: { '/events': { topics: ['news/*'] } },
      };`,
    );
    const { exitCode, out } = await ringway('check', '-c', 'topics.config.ts');
    expect([exitCode, out.trimEnd().split('\n').slice(-2)]).toEqual([
      0,
      [
        '  answers  events /events',
        '  topics   chat/:room (100 messages for 300 s, presence, authorize), news/* (5 messages for 60 s, not recovered), news/drafts (nothing)',
      ],
    ]);
  });

  test('check warns of what is allowed and ought to be otherwise', async () => {
    write('warned.config.ts', "export default { auth: { jwt: { jwks: 'http://login.example.com/keys' } }, fetch: () => new Response() };");
    const plain = await ringway('check', '-c', 'warned.config.ts');
    expect([plain.exitCode, plain.err]).toEqual([0, '']);
    expect(plain.out).toMatch(/^ {2}warning {2}auth\.jwt\.jwks: is fetched without TLS from login\.example\.com/m);
    const json = JSON.parse((await ringway('check', '--json', '-c', 'warned.config.ts')).out);
    expect(json).toMatchObject({ correct: true, warnings: [expect.stringContaining('without TLS')] });
  });

  test('check --json tells a program what the config means, or every mistake', async () => {
    write('right.config.ts', "export default { listen: [{ port: 8080, host: '127.0.0.1' }], workers: 2, fetch: () => new Response() };");
    const right = await ringway('check', '--json', '-c', 'right.config.ts');
    expect([right.exitCode, right.err, JSON.parse(right.out)]).toEqual([
      0,
      '',
      {
        config: 'right.config.ts',
        correct: true,
        listen: [{ address: '127.0.0.1:8080', tls: false }],
        admin: '127.0.0.1:9100',
        workers: 2,
        answers: ['HTTP'],
        topics: [],
        warnings: [],
      },
    ]);
    write('wrong.config.ts', "export default { workers: 'two', http: { maxHeaders: 1000 }, fetch: () => new Response() };");
    const wrong = await ringway('check', '--json', '-c', 'wrong.config.ts');
    expect([wrong.exitCode, wrong.err, JSON.parse(wrong.out)]).toEqual([
      78,
      '',
      {
        config: 'wrong.config.ts',
        correct: false,
        mistakes: [
          `workers: is "two"; write 'auto' or an integer from 1 to 256`,
          'http.maxHeaders: is 1000; write an integer from 1 to 256',
        ],
      },
    ]);
  });

  test('a Unix socket in a folder that is not there names the folder, and what to do', async () => {
    const path = join(folder, 'no/such/gateway.sock');
    for (const [option, text] of [
      ['listen', `listen: { unix: '${path}' }, admin: false`],
      ['admin', `listen: { port: 0, host: '127.0.0.1' }, admin: { unix: '${path}' }`],
    ] as const) {
      write(`${option}-folder.config.ts`, `export default { ${text}, workers: 1, fetch: () => new Response() };`);
      const { exitCode, err } = await ringway('start', '-c', `${option}-folder.config.ts`);
      expect([exitCode, err.includes(`the folder ${join(folder, 'no/such')} does not exist; create it (mkdir -p `)]).toEqual([1, true]);
      expect(err).toContain(`or set ${option}`);
    }
  });

  const wrong: readonly (readonly [readonly string[], string])[] = [
    [[], 'which command?'],
    [['stat'], "unknown command 'stat'; did you mean 'start'?"],
    [['toString'], "unknown command 'toString'; write one of start, dev, "],
    [['start', '--worker', '2'], "unknown option '--worker' of 'ringway start'; did you mean '--workers'?"],
    [['start', '--workers', '0'], "--workers is '0'; write an integer from 1 to 256"],
    [['start', '--workers=1e1'], "--workers is '1e1'"],
    [['check', '-c'], "'-c' needs a value"],
    [['check', '--config', '--x'], "'--config' needs a value"],
    [['check', 'a.ts'], "'a.ts' is one word too many for 'ringway check'"],
    [['init', '--force=yes'], "'--force' takes no value"],
    [['run'], "which program? Write 'ringway run app.js'"],
    [['run', '--'], 'which program?'],
    [['run', '--wokers', '2', 'app.js'], "unknown option '--wokers' of 'ringway run'; did you mean '--workers'?"],
    [['run', 'app.js', '--workers', '0'], "--workers is '0'; write 'auto' or an integer from 1 to 256"],
    [['run', 'app.js', '--workers'], "'--workers' needs a value"],
    [['run', '--workers', '--admin-port', '1'], "'--workers' needs a value"],
    [['run', '--drain-timeout=-1', 'app.js'], "--drain-timeout is '-1'; write an integer from 0 to 3600"],
    [['run', '--drain-delay=3601', 'app.js'], "--drain-delay is '3601'; write an integer from 0 to 3600"],
    [['run', '--drain-close-code=1000', 'app.js'], "--drain-close-code is '1000'; write 1001, 1012, 1013 or an integer from 3000 to 4999"],
    [['run', '--admin-port=65536', 'app.js'], "--admin-port is '65536'; write an integer from 0 to 65535"],
  ];
  for (const [args, message] of wrong) {
    test(`ringway ${args.join(' ')} is refused with 64`, async () => {
      const { exitCode, out, err } = await ringway(...args);
      expect([exitCode, out]).toEqual([64, '']);
      expect(err).toStartWith(`ringway: ${message}`);
    });
  }
});

describe('ringway run', () => {
  const read = (...words: string[]) => runArguments(words, {});

  test("its own options may stand on either side of the program, all else behind it is the program's", () => {
    expect(read('app.js')).toEqual({ program: 'app.js', args: [], workers: 'auto', drain: defaults.drain, adminPort: undefined });
    const drain = { delay: 3, timeout: 30, closeCode: 1012 };
    expect(read('app.js', '--drain-close-code', '1012', '--drain-delay=3').drain).toEqual(drain);
    expect(read('--workers', '2', 'app.js', '--port=80', '-v', 'x', '--drain-timeout', '5', '--admin-port=0')).toEqual({
      program: 'app.js',
      args: ['--port=80', '-v', 'x'],
      workers: 2,
      drain: { ...defaults.drain, timeout: 5 },
      adminPort: 0,
    });
    expect(read('app.js', '--help', '--', '--workers', '2')).toMatchObject({ args: ['--help', '--workers', '2'], workers: 'auto' });
    expect(read('--', '--odd.js', 'x')).toMatchObject({ program: '--odd.js', args: ['x'] });
  });

  test('WORKERS and ADMIN_PORT stand in where the command line is silent', () => {
    expect(runArguments(['app.js'], { WORKERS: '3', ADMIN_PORT: '9100' })).toMatchObject({ workers: 3, adminPort: 9100 });
    expect(runArguments(['app.js', '--workers', 'auto', '--admin-port', '1'], { WORKERS: 'x', ADMIN_PORT: 'x' })).toMatchObject({
      workers: 'auto',
      adminPort: 1,
    });
    expect(runArguments(['app.js'], { WORKERS: ' ', ADMIN_PORT: '' })).toMatchObject({ workers: 'auto', adminPort: undefined });
    expect(() => runArguments(['app.js'], { WORKERS: 'many' })).toThrow("env WORKERS is 'many'; write 'auto' or an integer from 1 to 256");
    expect(() => runArguments(['app.js'], { ADMIN_PORT: 'x' })).toThrow("env ADMIN_PORT is 'x'");
  });

  test('a program that is not there, or is a folder, is refused with 64', async () => {
    mkdirSync(join(folder, 'programs'));
    for (const [program, message] of [
      ['no.js', 'there is no such file; write the path of a program'],
      ['programs', 'is not a file; write the path of a program, such as programs/app.js'],
    ] as const)
      expect(await ringway('run', program)).toEqual({ exitCode: 64, out: '', err: `ringway: ${join(folder, program)}: ${message}\n` });
  });
});

describe('init and check', () => {
  test('init writes a config that check accepts, and does not replace one unless forced', async () => {
    expect((await ringway('init')).exitCode).toBe(0);
    const path = join(folder, 'gateway.config.ts');
    expect(readFileSync(path, 'utf8')).toBe(starterConfig);
    const checked = await ringway('check');
    expect(checked).toMatchObject({ exitCode: 0, err: '' });
    expect(checked.out).toContain('answers  HTTP, WebSocket /echo, WebSocket /room/:name');

    writeFileSync(path, '// mine');
    const again = await ringway('init');
    expect([again.exitCode, again.err]).toEqual([1, `ringway: ${path} exists already; 'ringway init --force' replaces it\n`]);
    expect(readFileSync(path, 'utf8')).toBe('// mine');
    expect((await ringway('init', '--force')).exitCode).toBe(0);
    expect(readFileSync(path, 'utf8')).toBe(starterConfig);
    rmSync(path);
  });

  test('a missing config suggests init, also for start', async () => {
    for (const command of ['check', 'start']) {
      const { exitCode, err } = await ringway(command);
      expect(exitCode).toBe(78);
      expect(err).toContain("there is no such file; run 'ringway init'");
    }
  });

  const bad: readonly (readonly [name: string, text: string, ...words: string[]])[] = [
    ['syntax', 'export default {\n  a: ]\n', 'syntax.ts:2:6: syntax error: ', '\n      a: ]\n         ^\n'],
    ['no-default', 'export const config = {};', 'no-default.ts: has no default export; write export default defineGateway({ ... })'],
    [
      'function',
      'export default () => new Response();',
      'export default: is a function; write export default defineGateway({ fetch: handler })',
    ],
    [
      'hono',
      "import { Hono } from 'hono'; export default new Hono();",
      'export default: is a Hono app; write export default defineGateway({ fetch: app })',
    ],
    ['promise', 'export default Promise.resolve({});', 'export default: is a promise; write'],
    ['throws', "throw new TypeError('no database');", 'throws.ts: threw while it was loaded: no database', 'TypeError: no database'],
    ['throws-text', "throw 'text';", 'throws-text.ts: threw "text" while it was loaded'],
    ['import', "import './nope.ts'; export default {};", "Cannot find module './nope.ts'", 'check its spelling'],
    ['package', "import 'no-such-package-here'; export default {};", "Cannot find package 'no-such-package-here'", 'install the package'],
    ['empty', 'export default {};', 'it has neither fetch nor websocket'],
  ];
  for (const [name, text, ...words] of bad) {
    test(`a config with the fault '${name}' is refused with 78`, async () => {
      const { exitCode, out, err } = await ringway('check', '-c', write(`${name}.ts`, text));
      expect([exitCode, out]).toEqual([78, '']);
      expect(err).toStartWith(`${name}.ts: 1 mistake\n`);
      for (const part of words) expect(err).toContain(part);
    });
  }

  test('a folder is not a config', async () => {
    mkdirSync(join(folder, 'dir'));
    expect((await ringway('check', '-c', 'dir')).err).toContain('is not a file');
  });
});
