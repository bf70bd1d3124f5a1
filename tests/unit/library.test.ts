/** What is said when the C core is missing, of another version, or none at all: to a program, and by the command. */
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dir, '..', '..');
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
  ['missing.so', /the C core is not built: .*missing\.so is missing\. Run 'npm start' once, or 'make -C ffi'/],
  ['old.so', /the C core at .*old\.so has ABI 1, this program needs \d+: rebuild it with 'make -C ffi'/],
  ['none.so', /the C core at .*none\.so cannot be loaded \(.+\): rebuild it with 'make -C ffi'/],
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
