/**
 * Where the C core is looked for, and what is said when the one that is named is missing, of another version, or none at all: to a program,
 * and by the command. That one is compiled where none fits is for tests/e2e/package.test.ts.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { workerVariable } from '../../../ffi/library.ts';
import { bootVariable } from '../../../src/process/boot.ts';

const root = join(import.meta.dir, '../../..');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-library-'));
  writeFileSync(join(folder, 'app.js'), "require('uWebSockets.js').App();");
  writeFileSync(join(folder, 'old.c'), 'unsigned rw_abi_version(void) { return 1; }');
  writeFileSync(join(folder, 'none.so'), 'no library');
  const { exitCode } = Bun.spawnSync(['cc', '-shared', '-fPIC', '-o', join(folder, 'old.so'), join(folder, 'old.c')]);
  if (exitCode !== 0) throw new Error('the C compiler that builds the core has failed');
});
afterAll(() => rmSync(folder, { recursive: true }));

const ways = {
  'a program': ['--preload', join(root, 'src', 'register.ts'), 'app.js'],
  'ringway run': [join(root, 'src', 'main.ts'), 'run', 'app.js'],
};

for (const [library, sentence] of [
  ['missing.so', /the C core that RINGWAY_LIBRARY names cannot be used: .*missing\.so is missing\. Rebuild it with 'make -C ffi'/],
  ['old.so', /the C core that RINGWAY_LIBRARY names cannot be used: .*old\.so has ABI 1, this program needs \d+\. Rebuild it/],
  ['none.so', /the C core that RINGWAY_LIBRARY names cannot be used: .*none\.so cannot be loaded \(.+\)\. Rebuild it/],
] as const) {
  for (const [way, args] of Object.entries(ways)) {
    test(`${way} with the library ${library} fails and says what to do`, () => {
      const env = { ...process.env, RINGWAY_LIBRARY: join(folder, library) };
      const { exitCode, stderr } = Bun.spawnSync([process.execPath, ...args], { cwd: folder, env, stderr: 'pipe', stdout: 'ignore' });
      expect(stderr.toString()).toMatch(sentence);
      expect(exitCode).toBe(1);
    });
  }
}

describe('where the core is looked for', () => {
  const compiled = 'package/ffi/build/libringway.so';
  const prebuilt = `package/prebuilt/linux-${process.arch}-glibc/libringway.so`;

  beforeAll(() => {
    mkdirSync(join(folder, 'package'));
    for (const name of ['library.ts', 'build-needs.json', 'Makefile', 'include', 'core'])
      cpSync(join(root, 'ffi', name), join(folder, 'package/ffi', name), { recursive: true });
    writeFileSync(
      join(folder, 'list.ts'),
      "import { libraryPaths } from './package/ffi/library.ts'; console.log(JSON.stringify([...libraryPaths()]));",
    );
  });

  /** The paths, those in the folder of this test relative to it. */
  function paths(env: Readonly<Record<string, string>> = {}): string[] {
    const { RINGWAY_LIBRARY, ...inherited } = process.env;
    const all = { ...inherited, XDG_CACHE_HOME: join(folder, 'cache'), ...env };
    const { stdout, stderr } = Bun.spawnSync([process.execPath, join(folder, 'list.ts')], { env: all, stdout: 'pipe', stderr: 'pipe' });
    if (stderr.length > 0) throw new Error(stderr.toString());
    return (JSON.parse(stdout.toString()) as string[]).map((path) => path.replace(`${folder}/`, ''));
  }

  function put(path: string, text = ''): void {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
    chmodSync(join(folder, path), 0o755);
  }

  test('what was compiled here goes before what came with the package; only files that are there are named', () => {
    expect(paths()).toEqual([]);
    put(prebuilt);
    expect(paths()).toEqual([prebuilt]);
    put(compiled);
    expect(paths()).toEqual([compiled, prebuilt]);
  });

  test('RINGWAY_LIBRARY excludes all others', () => {
    expect(paths({ RINGWAY_LIBRARY: '/elsewhere/core.so' })).toEqual(['/elsewhere/core.so']);
  });

  describe('a core compiled into the cache, since the package may not be written to', () => {
    /** Compiles with a shell that does `script` instead; ret: the path, relative, or the error. */
    function compile(script: string): string {
      const path = join(folder, 'path');
      for (const [name, text] of [
        ['gcc', ''],
        ['make', ''],
        ['sh', `#!/bin/sh\n${script}\n`],
      ] as const) {
        put(`path/${name}`, text);
      }
      writeFileSync(
        join(folder, 'compile.ts'),
        `import { compileCore } from './package/ffi/library.ts';
         try { console.log(compileCore()); } catch (error) { console.log(error.message); }`,
      );
      const env = { ...process.env, PATH: path, XDG_CACHE_HOME: join(folder, 'cache') };
      const { stdout } = Bun.spawnSync([process.execPath, join(folder, 'compile.ts')], { env, stdout: 'pipe', stderr: 'ignore' });
      return stdout.toString().trim().replace(`${folder}/`, '');
    }

    beforeAll(() => {
      // Not even root can make a folder of a file.
      rmSync(join(folder, 'package/ffi/build'), { recursive: true, force: true });
      rmSync(join(folder, prebuilt), { force: true });
      writeFileSync(join(folder, 'package/ffi/build'), '');
    });

    test('is found there, as long as the sources are those that it was compiled from', () => {
      const path = compile('echo core > "$2"');
      expect(path).toMatch(/^cache\/ringway\/core-[\w-]+\/libringway\.so$/);
      expect(paths()).toEqual([path]);
      for (const name of ['core/core.c', 'core/ws/ws.c', 'include/ringway.h']) {
        const source = join(folder, 'package/ffi', name);
        const before = readFileSync(source);
        writeFileSync(source, `${before}\n`);
        expect(paths()).toEqual([]);
        writeFileSync(source, before);
        expect(paths()).toEqual([path]);
      }
      expect(paths({ XDG_CACHE_HOME: join(folder, 'other') })).toEqual([]);
    });

    test('is not loaded when somebody else could have written it', () => {
      const path = compile('echo core > "$2"');
      for (const mode of [0o775, 0o757]) {
        chmodSync(join(folder, path), mode);
        expect(paths()).toEqual([]);
      }
      chmodSync(join(folder, path), 0o755);
      expect(paths()).toEqual([path]);
    });

    test('one that cannot be compiled: the error names the packages that it takes', () => {
      const error = compile('exit 2');
      expect(error).toStartWith('the C core could not be compiled (the messages of make are above). It takes these packages:\n');
      for (const name of ['liburing-dev', 'libssl-dev', 'zlib1g-dev', 'openssl-libs-static', 'linux-headers'])
        expect(error).toContain(` ${name}`);
    });
  });
});

test('workers are told apart by the variable that they are started with', () => {
  expect(workerVariable).toBe(bootVariable);
});
