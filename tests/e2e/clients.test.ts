/**
 * The clients of docs/clients.md, each as it stands there, with a project of `ringway init` that goes away and comes back.
 *
 * What they need is fetched once and kept in the user's cache; where a language, or the network, is not there, its tests are skipped and say so.
 * Rust compiles some forty crates the first time: half a minute, and a second from then on.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { freePort } from '../support/free-port.ts';
import { type Gateway, startGateway } from '../support/gateway.ts';
import { readPage, writeBlock } from '../support/markdown.ts';
import { RunningProgram } from '../support/running-program.ts';

// Only ends a test that has failed, or a compiler that is very slow.
setDefaultTimeout(300_000);

const root = join(import.meta.dir, '..', '..');
const { blocks } = readPage('docs/clients.md');
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ringway-tests', 'clients');
/** A registry that does not answer is as good as none. */
const fetchLimitMs = 120_000;

interface Language {
  readonly name: string;
  /** Without it nothing is run. */
  readonly program: string;
  /** Fetches what it needs, in a folder with the blocks of the page in it. Without a network these fail. */
  readonly fetch: readonly (readonly string[])[];
  /** Compiles; `OUT` is a folder of this run alone. */
  readonly build: readonly (readonly string[])[];
  readonly run: readonly string[];
}

/** The commands that the page shows for a language. */
const shown = (name: string) =>
  blocks
    .filter(({ heading, language }) => heading === name && language === 'sh')
    .flatMap(({ text }) => text.split('\n').map((line) => line.split(' ')));

const languages: readonly Language[] = [
  { name: 'JavaScript', program: process.execPath, fetch: [], build: [], run: [process.execPath, 'client.mjs'] },
  { name: 'Python', program: 'python3', fetch: shown('Python'), build: [], run: ['.venv/bin/python', 'client.py'] },
  { name: 'Go', program: 'go', fetch: shown('Go'), build: [['go', 'build', '-o', 'OUT/client', '.']], run: ['OUT/client'] },
  {
    name: 'Java',
    program: 'javac',
    fetch: [],
    build: [['javac', '-Xlint:all', '-Werror', '-d', 'OUT', 'Client.java']],
    run: ['java', '-cp', 'OUT', 'Client'],
  },
  {
    name: 'Rust',
    program: 'cargo',
    fetch: [['cargo', 'fetch', '--quiet']],
    build: [['cargo', 'build', '--quiet', '--offline']],
    run: ['target/debug/client'],
  },
];

/** ret: what it has written when it failed, or took too long */
async function failureOf(command: readonly string[], cwd: string): Promise<string | undefined> {
  const program = new RunningProgram(command, { cwd });
  const timer = setTimeout(() => program.kill('SIGKILL'), fetchLimitMs);
  const code = await program.ended();
  clearTimeout(timer);
  return code === 0 ? undefined : `'${command.join(' ')}' ended with ${code}: ${program.output()}`;
}

/** A folder with the program and what it needs. Throws what is in the way. */
async function prepare({ name, program, fetch }: Language): Promise<string> {
  if (Bun.which(program) === null) throw new Error(`${program} is not installed`);
  const ofLanguage = blocks.filter((block) => block.heading === name);
  // A folder for each version of the page; the programs are written anew each time.
  const key = createHash('sha256')
    .update(JSON.stringify([ofLanguage, fetch]))
    .digest('hex')
    .slice(0, 16);
  const folder = join(cache, `${name}-${key}`);
  if (!existsSync(folder)) {
    mkdirSync(cache, { recursive: true });
    const made = mkdtempSync(join(cache, 'making-'));
    for (const block of ofLanguage) if (block.path !== undefined) writeBlock(made, block);
    for (const command of fetch) {
      const failure = await failureOf(command, made);
      if (failure !== undefined) {
        rmSync(made, { recursive: true, force: true });
        throw new Error(failure);
      }
    }
    try {
      renameSync(made, folder);
    } catch {
      // Somebody else was first.
      rmSync(made, { recursive: true, force: true });
    }
  }
  if (name === 'JavaScript') copyFileSync(join(root, 'packaging/project/public/connection.js'), join(folder, 'connection.js'));
  return folder;
}

const prepared = await Promise.all(
  languages.map(async (language) => {
    try {
      return { language, folder: await prepare(language) };
    } catch (error) {
      console.warn(`the client in ${language.name} is not tested: ${error}`);
      return { language, folder: undefined };
    }
  }),
);

const starter = `
import starter from ${JSON.stringify(join(root, 'packaging/project/gateway.config.ts'))};
export default { ...starter, $OPTIONS, drain: { delay: 0, timeout: 1 } };
`;

test('every language of the page is run here', () => {
  const ofPage = new Set(blocks.filter(({ path }) => path !== undefined).map(({ heading }) => heading));
  expect([...ofPage]).toEqual(languages.map(({ name }) => name));
});

for (const { language, folder } of prepared) {
  describe.skipIf(folder === undefined)(`the client in ${language.name}`, () => {
    const port = freePort();
    let gateway: Gateway;
    let out: string;
    const cwd = folder ?? tmpdir();
    const inOut = (command: readonly string[]) => command.map((word) => word.replace('OUT', out));
    const running = new Set<RunningProgram>();

    const startAgain = async () => {
      gateway = await startGateway({ config: starter, workers: 2, listen: `{ port: ${port}, host: '127.0.0.1' }` });
    };
    const client = (topic: string) => {
      const program = new RunningProgram([...inOut(language.run), `ws://127.0.0.1:${port}/ws`, topic], { cwd });
      running.add(program);
      return program;
    };
    /** Until it has arrived: that it is subscribed is not told. */
    const hears = (program: RunningProgram, text: string) =>
      eventually(`it hears ${text}`, async () => {
        await fetch(`${gateway.url}/say`, { method: 'POST', body: text });
        await Bun.sleep(50);
        return program.out.includes(text);
      }).catch((error) => {
        throw new Error(`${error}\n${program.output()}`);
      });

    beforeAll(async () => {
      out = mkdtempSync(join(tmpdir(), 'ringway-client-'));
      for (const command of language.build) expect(await failureOf(inOut(command), cwd)).toBeUndefined();
      await startAgain();
    });
    afterAll(async () => {
      for (const program of running) await program.stop();
      await gateway?.stop();
      rmSync(out, { recursive: true, force: true });
    });

    test('comes back, and is subscribed again, after a drain and after a crash', async () => {
      const program = client('chat/lobby');
      await program.finds(/open/);
      await hears(program, 'before');
      gateway.kill('SIGTERM');
      await gateway.exited;
      await gateway.stop();
      await startAgain();
      await hears(program, 'after the drain');
      gateway.kill('SIGKILL');
      await gateway.stop();
      await startAgain();
      await hears(program, 'after the crash');
      expect(program.out.match(/^open/gm)?.length).toBeGreaterThanOrEqual(3);
      expect(program.hasEnded).toBe(false);
    });

    test('ends when it is refused', async () => {
      const program = client('elsewhere');
      expect(await program.ended()).toBe(1);
      expect(program.out.match(/^open/gm)).toHaveLength(1);
    });
  });
}
