/**
 * The example programs of uWebSockets.js, run from the installed package as they are: on the original under Node, and on Ringway under
 * Bun. What they answer and what they print is the same.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Example, examples, left, Talk } from './examples.ts';
import { commandLine, here, Program, type Side, whyNot } from './program.ts';

const timeoutMs = 90_000;
const library = join(here, 'node_modules/uwebsockets');
const ports = ['9001', '3000'];
let folder = '';

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ringway-examples-'));
  const shim = Bun.spawnSync([
    process.env.CC ?? 'cc',
    '-shared',
    '-fPIC',
    '-O1',
    '-o',
    join(folder, 'ports.so'),
    join(here, 'programs/fixed-ports.c'),
    '-ldl',
  ]);
  expect(shim.stderr.toString()).toBe('');
  // Where the programs look for keys, and for the videos of their author: a Windows path is a file's name here.
  await symlink(join(library, 'misc'), join(folder, 'misc'));
  const video = new Uint8Array(6_000_000).map((_, index) => index % 251);
  await Bun.write(join(folder, 'video'), video);
  await symlink(join(folder, 'video'), join(folder, 'C:\\Users\\Alex\\Downloads\\Sintel.2010.720p.mkv'));
});

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function run(side: Side, name: string, example: Example): Promise<unknown> {
  const command = commandLine(side, join(library, 'examples', `${name}.js`), [], join(here, 'programs/video-file.mjs'));
  const program = new Program(command, {
    cwd: folder,
    env: { LD_PRELOAD: join(folder, 'ports.so'), FIXED_PORTS: ports.join(), VIDEO_FILE: join(folder, 'video') },
  });
  let talk: Talk | undefined;
  try {
    const [, said] = await program.line(/^Listening to port (\d+)/);
    const isFixed = ports.includes(said ?? '');
    if (isFixed) await program.until('the port it got', () => /^bound \d+ to \d+$/m.test(program.err));
    talk = new Talk(program, Number(isFixed ? /^bound \d+ to (\d+)$/m.exec(program.err)?.[1] : said));
    const seen = await example.talk(talk);
    const printed = example.isTalkative ? [] : program.lines.map((line) => (isFixed ? line : line.replace(said ?? '', 'a port')));
    return { seen, printed };
  } catch (error) {
    throw new Error(`${side}: ${error instanceof Error ? error.message : error}\n${program.err}`, { cause: error });
  } finally {
    talk?.close();
    await program.stop();
  }
}

describe('the example programs of uWebSockets.js', () => {
  for (const [name, example] of Object.entries(examples))
    test.skipIf(whyNot !== undefined)(
      `${name} does on Ringway what it does on the original`,
      async () => {
        const [original, ours] = await Promise.all([run(example.original ?? 'original', name, example), run('ringway', name, example)]);
        expect(ours).toEqual(original);
        expect(JSON.stringify(ours)).toContain(example.seen);
      },
      timeoutMs,
    );

  test('all of them are run, but for those named with a reason', async () => {
    const files = (await readdir(join(library, 'examples'))).filter((file) => file.endsWith('.js')).map((file) => file.slice(0, -3));
    expect(files.sort()).toEqual([...Object.keys(examples), ...Object.keys(left)].sort());
  });
});
