/**
 * The documentation says what holds: its code blocks are checked by kind, its links and commands exist, and its tables of options, metrics and
 * codes have exactly the rows that the source has.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { result } from '../../../ffi/layout.ts';
import { commandHelp } from '../../../src/cli/help.ts';
import { ConfigError } from '../../../src/config/config-error.ts';
import { defaults } from '../../../src/config/defaults.ts';
import { resolveConfig } from '../../../src/config/resolve.ts';
import { exitCodes } from '../../../src/exit-codes.ts';
import { createMetrics } from '../../../src/supervisor/metrics.ts';
import { compile } from '../../support/compiler.ts';
import { type Block, readPage } from '../../support/markdown.ts';

const root = resolve(import.meta.dir, '../../..');
const source = (path: string) => readFileSync(join(root, path), 'utf8');

function markdownFiles(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true })
    .map((name) => join(folder, String(name)))
    .filter((path) => path.endsWith('.md'))
    .sort();
}

const pages = ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...markdownFiles('docs')].map(readPage);
const blocks = pages.flatMap((page) => page.blocks);
const where = (block: Block) => `${block.file}:${block.line}`;
const tested = (...languages: string[]) =>
  blocks.filter((block) => languages.includes(block.language) && block.path === undefined && !block.info.startsWith('no-test'));
/** Pages that build up programs, and the tests that run these. */
const programs = {
  'docs/clients.md': 'tests/e2e/clients.test.ts',
  'docs/guides/authentication.md': 'tests/e2e/guides.test.ts',
  'docs/guides/broadcasting.md': 'tests/e2e/guides.test.ts',
  'docs/guides/slow-clients.md': 'tests/e2e/guides.test.ts',
  'docs/guides/small-app.md': 'tests/e2e/guides.test.ts',
  'docs/guides/testing.md': 'tests/e2e/guides.test.ts',
  'docs/history.md': 'tests/e2e/history.test.ts',
  'docs/presence.md': 'tests/e2e/presence.test.ts',
  'docs/sse.md': 'tests/e2e/guides.test.ts',
  'docs/tokens.md': 'tests/e2e/guides.test.ts',
  'docs/tutorial.md': 'tests/e2e/tutorial.test.ts',
} as const;

// Configs take it from there, as they should.
process.env.JWT_SECRET ??= 'a secret that only these tests have';

describe('code blocks', () => {
  test('are of a kind that is checked, or say why not, and few do', () => {
    // Those of proxies are run by tests/e2e/proxy-recipes.test.ts.
    const kinds = ['', 'ts', 'js', 'json', 'yaml', 'sh', 'console', 'ini', 'nginx', 'haproxy', 'caddy', 'apache'];
    for (const block of blocks.filter(({ path }) => path === undefined))
      expect([where(block), kinds.includes(block.language)]).toEqual([where(block), true]);
    const exempt = blocks.filter((block) => block.info !== '' && block.path === undefined);
    for (const block of exempt) expect([where(block), block.info]).toEqual([where(block), expect.stringMatching(/^no-test .{8,}/)]);
    expect(exempt.length).toBeLessThanOrEqual(2);
    expect(tested('ts').length).toBeGreaterThanOrEqual(6);
  });

  test('that are files of a program are run by the test of their page', () => {
    const named = new Set(blocks.filter(({ path }) => path !== undefined).map(({ file }) => file));
    expect([...named].toSorted()).toEqual(Object.keys(programs).toSorted());
    for (const [page, path] of Object.entries(programs)) expect([path, source(path).includes(`readPage('${page}')`)]).toEqual([path, true]);
  });

  describe('of TypeScript', () => {
    const files = tested('ts').map((block, index) => ({ block, name: `block-${index}.ts` }));
    const placeOf = (index: number) =>
      files
        .filter((_, at) => at === index)
        .map(({ block }) => where(block))
        .join();
    let folder = '';

    beforeAll(() => {
      // Inside the tree, so that imports resolve as they do for a config beside package.json; ffi/build is ignored by git.
      mkdirSync(join(root, 'ffi/build'), { recursive: true });
      folder = mkdtempSync(join(root, 'ffi/build/docs-'));
      for (const { block, name } of files) writeFileSync(join(folder, name), block.text);
      // What certificates hold is for those who load them; that a config names files which are there is checked.
      for (const [, path = ''] of files.flatMap(({ block }) => [...block.text.matchAll(/'([\w-][\w./-]*\.pem)'/g)])) {
        mkdirSync(dirname(join(folder, path)), { recursive: true });
        writeFileSync(join(folder, path), '');
      }
      const settings = {
        extends: '../../../tsconfig.json',
        compilerOptions: { paths: { ringway: ['../../../src/index.ts'], 'ringway/uws': ['../../../src/frontend/uws/index.ts'] } },
        include: ['*.ts'],
      };
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(settings));
    });
    afterAll(() => rmSync(folder, { recursive: true, force: true }));

    test('have no type errors', async () => {
      const lines = (await compile(['--noEmit', '--listFiles', '-p', folder], folder)).said.split('\n');
      expect(files.filter(({ name }) => !lines.some((line) => line.endsWith(`/${name}`)))).toEqual([]);
      // Errors of the tree itself, which has '../' before it, are for the step that checks its types.
      const errors = lines.filter((line) => line.includes('error TS') && !line.startsWith('../'));
      expect(errors.map((line) => line.replace(/^block-(\d+)\.ts/, (_, index) => placeOf(Number(index))))).toEqual([]);
    }, 60_000);

    test.each(files.map(({ block, name }) => [where(block), name]))(
      '%s loads, and what it exports is a correct config',
      async (_, name) => {
        const module: { default?: unknown } = await import(join(folder, name));
        if (module.default !== undefined) expect(resolveConfig(module.default, {}, name, folder).listen.length).toBeGreaterThan(0);
      },
    );
  });

  test('of JavaScript parse', () => {
    const transpiler = new Bun.Transpiler({ loader: 'js' });
    for (const block of tested('js')) expect([where(block), typeof transpiler.transformSync(block.text)]).toEqual([where(block), 'string']);
  });

  test('of JSON parse', () => {
    for (const block of tested('json')) expect(() => JSON.parse(block.text), where(block)).not.toThrow();
  });

  test('of YAML parse', () => {
    for (const block of tested('yaml')) expect(() => Bun.YAML.parse(block.text), where(block)).not.toThrow();
  });

  test('of a refused config show what ringway prints', () => {
    const shown = tested('console').filter((block) => block.text.includes('mistakes'));
    expect(shown.length).toBe(1);
    const config = { fetch: () => new Response(), workers: 'two', http: { maxHeaders: 1000 } };
    const printed = shown[0]?.text.split('\n').slice(1).join('\n');
    expect(() => resolveConfig(config, {}, 'gateway.config.ts')).toThrow(
      new ConfigError('gateway.config.ts', (printed ?? '').split('\n  ').slice(1)),
    );
  });

  test('of commands begin with programs that exist', () => {
    const known = [
      'npm',
      'echo',
      'python3',
      '.venv/bin/pip',
      'go',
      'npx',
      'node',
      'bun',
      'bunx',
      'apt-get',
      'cp',
      'journalctl',
      'systemctl',
      'useradd',
      'docker',
      'buildah',
      'curl',
      'openssl',
      'kill',
      'make',
      'mkdir',
      'cd',
      'perf',
      'ringway',
      'sysctl',
      'taskset',
      'ulimit',
    ];
    const unknown = tested('sh', 'console').flatMap((block) =>
      commandsOf(block)
        .map(programOf)
        .filter((program) => !known.includes(program) && !builtFrom(program))
        .map((program) => `${where(block)}: ${program}`),
    );
    expect(unknown).toEqual([]);
  });
});

describe('commands of ringway', () => {
  test('exist, wherever a block of commands has one', () => {
    const known = [...source('src/cli/cli.ts').matchAll(/^ {4}(\w+): defineCommand\(/gm)].map(([, name]) => name);
    const given = tested('sh', 'console').flatMap((block) =>
      commandsOf(block).flatMap((command) => {
        const word = /(?:^|\s)(?:npx |\S*\/)?ringway(?:\.mjs)? (\w+)/.exec(command)?.[1];
        return word === undefined ? [] : [`${where(block)}: ${word}`];
      }),
    );
    expect(given.length).toBeGreaterThan(5);
    expect(given.filter((command) => !known.includes(command.split(': ')[1]))).toEqual([]);
  });
});

/** A block of `console` shows output as well: there commands begin with `$ `. */
function commandsOf(block: Block): string[] {
  const lines = block.text.split('\n').filter((line) => line.trim() !== '' && !line.startsWith('#'));
  return block.language === 'console' ? lines.filter((line) => line.startsWith('$ ')).map((line) => line.slice(2)) : lines;
}

function programOf(command: string): string {
  return command.split(/\s+/).find((word) => !/^[A-Za-z_]+=/.test(word)) ?? '';
}

/** Programs of the tree: installed ones, and those that make builds from a test or a fuzz target. */
function builtFrom(program: string): boolean {
  const built = /^ffi\/build\/(tests|fuzz)\/(\w+)$/.exec(program);
  const path = built === null ? program : `tests/${built[1] === 'tests' ? 'c' : 'fuzz'}/${built[2]}.c`;
  return program.includes('/') && existsSync(join(root, path));
}

describe('what pages name exists', () => {
  /** GitHub's anchor of a heading. */
  const anchorOf = (heading: string) =>
    heading
      .replaceAll('`', '')
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replaceAll(' ', '-');
  const anchorsOf = (path: string) => [...readPage(path).prose.matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchorOf(heading ?? ''));

  test('links lead to files and headings', () => {
    const broken = pages.flatMap((page) =>
      [...page.prose.matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, target = '']) => {
        if (/^https?:/.test(target)) return [];
        const [path = '', anchor] = target.split('#');
        const file = path === '' ? page.file : relative(root, resolve(root, dirname(page.file), path));
        const found = existsSync(join(root, file)) && (anchor === undefined || anchorsOf(file).includes(anchor));
        return found ? [] : [`${page.file}: ${target}`];
      }),
    );
    expect(broken).toEqual([]);
  });

  test('paths of the tree', () => {
    const absent = pages.flatMap((page) =>
      [...page.prose.matchAll(/`((?:src|ffi|tests|docs|scripts|bin|bench|public|docker|packaging|site)\/[\w./-]*)`/g)]
        .map(([, path = '']) => path)
        .filter((path) => !/^(?:ffi\/build|site\/dist)\//.test(path) && !existsSync(join(root, path)))
        .filter((path) => !page.blocks.some((block) => block.path === path))
        // Of a project that `ringway init` makes.
        .filter((path) => !existsSync(join(root, 'packaging/project', path)))
        .map((path) => `${page.file}: ${path}`),
    );
    expect(absent).toEqual([]);
  });

  test('files of the core named alone', () => {
    const named = pages.flatMap((page) => [...page.prose.matchAll(/`([a-z_]+\.[ch])`/g)].map(([, name]) => `${page.file}: ${name}`));
    const known = [
      ...readdirSync(join(root, 'ffi/core'), { recursive: true }).map((path) => basename(String(path))),
      ...['ffi/include', 'ffi'].flatMap((folder) => readdirSync(join(root, folder))),
    ];
    expect(named.filter((entry) => !known.includes(entry.split(': ')[1] ?? ''))).toEqual([]);
  });

  test('npm scripts, commands of ringway and targets of make', () => {
    // 'dev' is one of a project that `ringway init` makes.
    const scripts = [...Object.keys(JSON.parse(source('package.json')).scripts), 'dev'];
    const commands = Object.keys(commandHelp);
    const targets = [...source('ffi/Makefile').matchAll(/^\.PHONY: (.+)$/gm)].flatMap(([, names = '']) => names.split(' '));
    const absent = pages.flatMap(({ file, text }) => [
      ...namesAfter(/npm run ([\w-]+)/g, text, scripts, file),
      ...namesAfter(/npm (start|test)\b/g, text, scripts, file),
      ...namesAfter(/(?:`ringway|ringway\.mjs) (\w+)/g, text, commands, file),
      ...namesAfter(/make -C ffi ([a-z-]+)\b(?!\/)/g, text, targets, file),
    ]);
    expect(absent).toEqual([]);
  });

  function namesAfter(pattern: RegExp, text: string, known: readonly string[], file: string): string[] {
    return [...text.matchAll(pattern)]
      .map(([, name = '']) => name)
      .filter((name) => !known.includes(name))
      .map((name) => `${file}: ${name}`);
  }

  test('decisions are numbered without gaps and fit a page', () => {
    const names = readdirSync(join(root, 'docs/decisions')).sort();
    for (const [index, name] of names.entries()) {
      expect(name).toStartWith(`${String(index + 1).padStart(4, '0')}-`);
      const text = source(`docs/decisions/${name}`);
      for (const heading of ['Context', 'Choice', 'Rejected', 'Look again when'])
        expect([name, text.includes(`\n## ${heading}\n`)]).toEqual([name, true]);
      expect([name, text.split('\n').length < 75]).toEqual([name, true]);
    }
  });
});

/** The part of a page under a heading of level 2. */
function section(file: string, heading: string): string {
  const found = source(file)
    .split(/^## /m)
    .find((part) => part.startsWith(`${heading}\n`));
  if (found === undefined) throw new Error(`${file} has no section '${heading}'`);
  return found;
}

/** Cells of the rows whose first cell is code. */
function rows(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );
}
const firstNames = (text: string) =>
  rows(text).flatMap(([first = '']) => [...first.matchAll(/`([\w.]+)[^`]*`/g)].map(([, name = '']) => name));

describe('docs/errors.md', () => {
  test('has a heading for every stable code, and no other', () => {
    const files = readdirSync(join(root, 'src'), { recursive: true })
      .map(String)
      .filter((name) => name.endsWith('.ts'));
    const texts = [...files.map((name) => source(join('src', name))), source('ffi/bindings.ts')];
    const thrown = texts.flatMap((text) => [...text.matchAll(/code = '(RW_\w+)'/g)].map(([, code = '']) => code));
    const ofCore = Object.entries(result).flatMap(([name, value]) => (value < 0 ? [`RW_ERR_${name.toUpperCase()}`] : []));
    const headings = [...source('docs/errors.md').matchAll(/^### `(\w+)`$/gm)].map(([, code = '']) => code);
    expect(headings.toSorted()).toEqual([...thrown, ...ofCore].toSorted());
  });

  test('lists every status and close code that the core gives by itself', () => {
    const allOf = (folder: string) =>
      readdirSync(join(root, folder))
        .filter((name) => name.endsWith('.c'))
        .map((name) => source(join(folder, name)))
        .join('\n');
    const requests = allOf('ffi/core/http1');
    const statuses = [
      ...[...requests.matchAll(/^ {4}[A-Z_]+ = -(\d{3}),/gm)].map(([, status]) => status),
      ...[...requests.matchAll(/refuse\(core, slot, (\d{3})\)/g)].map(([, status]) => status),
    ];
    expect(statuses.length).toBeGreaterThan(5);
    const statusTable = section('docs/errors.md', 'HTTP statuses from the gateway');
    expect(statuses.filter((status) => !statusTable.includes(`| ${status} | core |`))).toEqual([]);
    const sending = allOf('ffi/core/ws');
    const closes = [...sending.matchAll(/(?:rw_ws_close\(core, slot,|\breturn) (\d{4})\b/g)].map(([, code]) => code);
    expect(closes.length).toBeGreaterThan(3);
    const closeTable = section('docs/errors.md', 'WebSocket close codes');
    expect(closes.filter((code) => !closeTable.includes(`| ${code} |`))).toEqual([]);
  });

  test('lists every exit code', () => {
    const table = section('docs/errors.md', 'Exit codes');
    const listed = [...table.matchAll(/^\| (\d[\d, ]*) \|/gm)].flatMap(([, codes = '']) => codes.split(', ').map(Number));
    expect(listed.toSorted()).toEqual(Object.values(exitCodes).toSorted());
  });
});

describe('docs/troubleshooting.md', () => {
  test('knows only statuses, close codes and error codes that docs/errors.md explains', () => {
    const errors = source('docs/errors.md');
    const firstCells = [...source('docs/troubleshooting.md').matchAll(/^\| ([^|]+) \|/gm)].map(([, cell = '']) => cell);
    const codes = firstCells.flatMap((cell) =>
      [...cell.matchAll(/^(?:exit code )?(\d{3,4}|RW_\w+)\b|`(RW_\w+)`/g)].map(([, a, b]) => a ?? b ?? ''),
    );
    expect(codes.length).toBeGreaterThan(20);
    // What a proxy answers by itself.
    expect(codes.filter((code) => code !== '502' && !new RegExp(`\\b${code}\\b`).test(errors))).toEqual([]);
  });

  test('metrics that any page names exist', () => {
    const metrics = section('docs/operations.md', 'Metrics');
    const named = pages.flatMap(({ file, text }) =>
      file === 'docs/operations.md' || file === 'CHANGELOG.md'
        ? []
        : [...text.matchAll(/\b(ringway_[a-z]+_[a-z_]+[a-z])\b/g)].map(([, name = '']) => [
            file,
            name.replace(/^ringway_node_/, 'ringway_'),
          ]),
    );
    expect(named.length).toBeGreaterThan(20);
    expect(named.filter(([, name]) => !metrics.includes(`\`${name}\``))).toEqual([]);
  });
});

describe('docs/abi.md', () => {
  const header = source('ffi/include/ringway.h');
  const page = source('docs/abi.md');

  test('names every function of the ABI, and no other', () => {
    const exported = [...header.matchAll(/^RW_EXPORT [^(]*?(rw_\w+)\(/gm)].map(([, name]) => name);
    const named = [...page.matchAll(/`(rw_\w+)(?:\(\))?`/g)].map(([, name]) => name);
    expect(exported.length).toBeGreaterThan(20);
    expect(new Set(named)).toEqual(new Set(exported));
  });

  test('names every event and command', () => {
    const types = (kind: string) => [...header.matchAll(new RegExp(`^ {4}RW_${kind}_(\\w+) = \\d+,`, 'gm'))].map(([, name = '']) => name);
    const records = section('docs/abi.md', 'Records');
    expect([...types('EVENT'), ...types('COMMAND')].filter((name) => !new RegExp(`\\b${name}\\b`).test(records))).toEqual([]);
    expect(Math.min(types('EVENT').length, types('COMMAND').length)).toBeGreaterThan(10);
  });
});

describe('docs/configuration.md', () => {
  const define = source('src/api/define.ts');
  const websocket = source('src/api/websocket.ts');
  const policy = source('src/api/topic-policy.ts');

  /** Names of the members of an interface: options, or with `functions` its methods. */
  function members(text: string, name: string, functions = false): string[] {
    const body = new RegExp(`^export interface ${name}\\b[^\\n]*\\{\\n([\\s\\S]*?)^\\}`, 'm').exec(text)?.[1] ?? '';
    return [...body.matchAll(functions ? /^ {2}(\w+)\?\(/gm : /^ {2}(\w+)\??:/gm)].map(([, member = '']) => member);
  }

  test.each([
    ['Top level', members(define, 'GatewayConfig')],
    ['listen', members(define, 'ListenOptions')],
    ['tls', [...members(define, 'CertificateOptions'), ...members(define, 'TlsOptions')]],
    ['admin', members(define, 'AdminOptions')],
    ['http', members(define, 'HttpOptions')],
    ['limits', members(define, 'LimitOptions')],
    ['io', [...members(define, 'IoOptions'), ...members(define, 'SqpollOptions').map((name) => `sqpoll.${name}`)]],
    [
      'auth',
      [
        ...members(define, 'AuthOptions'),
        ...members(define, 'JwtOptions').map((name) => `jwt.${name}`),
        ...members(define, 'JwksOptions').map((name) => `jwks.${name}`),
      ],
    ],
    ['trustedProxies', members(define, 'TrustedProxiesOptions')],
    [
      'redis',
      [
        ...members(define, 'RedisOptions'),
        ...members(define, 'SentinelOptions').map((name) => `sentinels.${name}`),
        ...members(define, 'RedisTlsOptions').map((name) => `tls.${name}`),
      ],
    ],
    [
      'topics',
      [
        ...members(policy, 'TopicPolicy'),
        ...members(policy, 'TopicPolicy', true),
        ...members(policy, 'TopicHistoryOptions').map((name) => `history.${name}`),
        ...[...members(policy, 'TopicPresenceOptions'), ...members(policy, 'TopicPresenceOptions', true)].map((name) => `presence.${name}`),
      ],
    ],
    ['sse', members(policy, 'SseOptions')],
    ['drain', members(define, 'DrainOptions')],
    ['log', members(define, 'LogOptions')],
    ['compression', members(websocket, 'CompressionOptions')],
    ['websocket', [...members(websocket, 'WebSocketOptions'), ...members(websocket, 'WebSocketHandler', true)]],
  ])('the section %s has a row for each of its options, and no other', (heading, options) => {
    expect(options.length).toBeGreaterThan(0);
    expect(firstNames(section('docs/configuration.md', heading)).toSorted()).toEqual(options.toSorted());
  });

  test('defaults are those of defaults.ts', () => {
    const wrong: string[] = [];
    const { topicPresence } = defaults;
    const topics = {
      ...defaults.topics,
      ...Object.fromEntries(Object.entries(topicPresence).map(([name, value]) => [`presence.${name}`, value])),
    };
    const headings = [
      'listen',
      'tls',
      'admin',
      'topics',
      'sse',
      'http',
      'limits',
      'trustedProxies',
      'redis',
      'io',
      'drain',
      'log',
    ] as const;
    for (const heading of headings) {
      const shown = new Map(
        rows(section('docs/configuration.md', heading)).map(([name = '', value = '']) => [name.replaceAll('`', ''), value]),
      );
      for (const [name, value] of Object.entries(heading === 'topics' ? topics : defaults[heading])) {
        const text = Array.isArray(value) ? '[]' : String(value);
        // Ports that a URL leaves out.
        if (heading === 'redis' && (name === 'port' || name === 'sentinelPort')) continue;
        const cell = name === 'hostWithoutIpv6' ? shown.get('host') : shown.get(name);
        if (!cell?.includes(text)) wrong.push(`${heading}.${name}: ${text}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  test('names every variable of the environment', () => {
    const names = [...source('src/config/resolve.ts').matchAll(/'([A-Z_]{4,})'/g)].map(([, name = '']) => name);
    expect(new Set(firstNames(section('docs/configuration.md', 'The environment')))).toEqual(
      new Set(names.filter((name) => !name.startsWith('RW_'))),
    );
  });
});

test('docs/README.md leads to every page; of the decisions to the first', () => {
  const linked = [...source('docs/README.md').matchAll(/\]\(([\w./-]+\.md)\)/g)].map(([, target = '']) => join('docs', target));
  const all = markdownFiles('docs').filter((file) => file !== 'docs/README.md' && !/^docs\/decisions\/(?!0001)/.test(file));
  expect(all.filter((file) => !linked.includes(file))).toEqual([]);
});

describe('docs/socket.md', () => {
  /** Every member of an interface, methods included. */
  function allMembers(path: string, name: string): string[] {
    const body = new RegExp(`^export interface ${name}\\b[^\\n]*\\{\\n([\\s\\S]*?)^\\}`, 'm').exec(source(path))?.[1] ?? '';
    return [...body.matchAll(/^ {2}(?:readonly )?(\w+)\??[:(<]/gm)].map(([, member = '']) => member);
  }
  const websocket = 'src/api/websocket.ts';

  test.each([
    ['Socket', allMembers(websocket, 'Socket')],
    ['Message', allMembers(websocket, 'Message')],
    ['UpgradeClient', allMembers(websocket, 'UpgradeClient')],
    ['Publish', [...source('src/api/publish.ts').matchAll(/^export function (publish\w*)\(/gm)].map(([, name = '']) => name)],
    ['Worker', allMembers('src/api/lifecycle.ts', 'Worker')],
    ['TlsInfo', allMembers('src/core/tls-info.ts', 'TlsInfo')],
  ])('%s has a row for each member, and no other', (heading, members) => {
    expect(members.length).toBeGreaterThan(0);
    const [table = ''] = section('docs/socket.md', heading).split('\n### ');
    // Of overloads once.
    const once = (names: readonly string[]) => [...new Set(names)].toSorted();
    expect(once(firstNames(table))).toEqual(once(members));
  });

  test('says all that send may answer', () => {
    const type = /^export type SendResult = (.+);$/m.exec(source(websocket))?.[1] ?? '';
    const answers = type.split(' | ').map((answer) => `\`${answer}\``);
    const listed = rows(section('docs/socket.md', 'Socket').split('### What send answers')[1] ?? '').map(([answer]) => answer);
    expect(listed.toSorted()).toEqual(answers.toSorted());
    expect(answers.length).toBeGreaterThan(2);
  });
});

describe('docs/install.md', () => {
  const page = source('docs/install.md');

  test('names the glibc that packing holds the cores to, and the Bun that comes along', () => {
    const least = /glibcLeast = '([\d.]+)'/.exec(source('scripts/pack-cores.mjs'))?.[1];
    expect(new Set([...page.matchAll(/glibc (?:than )?(\d\.\d+)/g)].map(([, version]) => version))).toEqual(new Set([least]));
    expect(page).toContain(`| Bun ${JSON.parse(source('package.json')).dependencies.bun},`);
  });

  test('lists the packages that compiling the core takes', () => {
    const needs: { debian: string[]; alpine: string[] }[] = JSON.parse(source('ffi/build-needs.json'));
    for (const [system, name] of [
      ['debian', 'Debian, Ubuntu'],
      ['alpine', 'Alpine'],
    ] as const) {
      const listed = new RegExp(`^\\| ${name} \\| \\x60(.+)\\x60 \\|$`, 'm').exec(page)?.[1];
      expect([name, listed?.split(' ').sort()]).toEqual([name, needs.flatMap((need) => need[system]).sort()]);
    }
  });
});

describe('docs/operations.md', () => {
  test('has a row for every metric, with its kind, and no other', async () => {
    const metrics = createMetrics({
      workers: [{ isReady: true, restarts: 0 }],
      startedAtMs: 0,
      version: '1',
      generation: 1,
      reloads: { reloaded: 0 },
      linesLost: 0,
      read: () => 1,
    });
    const exported = [...(await metrics.metrics()).matchAll(/^# TYPE (\w+) (\w+)$/gm)]
      .filter(([, name = '']) => !name.startsWith('ringway_node_'))
      .map(([, name, kind]) => `${name} ${kind}`);
    const listed = rows(section('docs/operations.md', 'Metrics')).map(([name = '', kind]) => `${name.replaceAll('`', '')} ${kind}`);
    expect(listed.toSorted()).toEqual(exported.toSorted());
  });
});

describe('the example', () => {
  test('gateway.config.ts is a correct config, short enough to read', async () => {
    const module: { default: unknown } = await import(join(root, 'gateway.config.ts'));
    const config = resolveConfig(module.default, {});
    expect(config.websocket.map((route) => route.pattern)).toEqual(['/echo', '/room/:name']);
    expect(source('gateway.config.ts').split('\n').length).toBeLessThanOrEqual(60);
  });

  test('its page is one file that loads nothing from elsewhere and never writes HTML', () => {
    const page = source('public/index.html');
    expect(page).not.toMatch(/(?:src|href)="(?!data:)|@import|url\(|https?:\/\/(?!www\.w3\.org\/2000\/svg)/);
    expect(page).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(/);
  });
});
