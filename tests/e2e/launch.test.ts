/** What the launcher, bin/ringway.mjs, starts Bun with. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const launcher = join(import.meta.dir, '..', '..', 'bin', 'ringway.mjs');
const folder = mkdtempSync(join(tmpdir(), 'ringway-launch-'));
const asked: string[] = [];
let registry: ReturnType<typeof Bun.serve>;

beforeAll(() => {
  writeFileSync(
    join(folder, 'gateway.config.ts'),
    "import 'no-such-package-of-ringway';\nexport default { fetch: () => new Response('ok') };\n",
  );
  registry = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch(request) {
      asked.push(request.url);
      return new Response('{}', { status: 404 });
    },
  });
});
afterAll(async () => {
  await registry.stop(true);
  rmSync(folder, { recursive: true, force: true });
});

async function run(program: readonly string[], command: string): Promise<{ code: number; text: string }> {
  const child = Bun.spawn([...program, command], {
    cwd: folder,
    env: { ...process.env, BUN_CONFIG_REGISTRY: registry.url.href, npm_config_registry: registry.url.href, ADMIN_PORT: '0', PORT: '0' },
    stdout: 'pipe',
    stderr: 'pipe',
  });
  const [out, err, code] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
  return { code, text: out + err };
}

describe('a package that a config imports and no folder has', () => {
  for (const command of ['check', 'doctor', 'start']) {
    test(`is asked of no registry by ringway ${command}, and named`, async () => {
      const { code, text } = await run(['node', launcher], command);
      expect(text).toContain("'no-such-package-of-ringway'");
      expect(code).not.toBe(0);
      expect(asked).toEqual([]);
    });
  }
});

describe('npm start', () => {
  const root = join(import.meta.dir, '..', '..');
  const script: string = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).scripts.start;

  /** ret: which program runs scripts/start.mjs, and with what words, where `bun` lies in node_modules. */
  function startedBy(name: string, bun: (path: string) => void): { program: string; words: string[] } {
    const checkout = join(folder, name);
    mkdirSync(join(checkout, 'scripts'), { recursive: true });
    mkdirSync(join(checkout, 'node_modules/.bin'), { recursive: true });
    const told = "JSON.stringify({ program: process.versions.bun === undefined ? 'node' : 'bun', words: process.argv.slice(2) })";
    writeFileSync(join(checkout, 'scripts/start.mjs'), `console.log(${told});\n`);
    bun(join(checkout, 'node_modules/.bin/bun'));
    // As npm runs it, with the words of the command line behind it.
    const { stdout, exitCode } = Bun.spawnSync(['sh', '-c', `${script} --workers '1 2'`], { cwd: checkout });
    expect(exitCode).toBe(0);
    return JSON.parse(stdout.toString());
  }

  test('is run by the Bun of node_modules, and by Node as long as there is none that works', () => {
    const words = ['--workers', '1 2'];
    expect(startedBy('installed', (path) => symlinkSync(process.execPath, path))).toEqual({ program: 'bun', words });
    expect(startedBy('fresh', () => {})).toEqual({ program: 'node', words });
    const placeholder = (path: string) => writeFileSync(path, '#!/bin/sh\necho "Bun was not installed" >&2\nexit 1\n', { mode: 0o755 });
    expect(startedBy('without scripts of packages', placeholder)).toEqual({ program: 'node', words });
  });
});
