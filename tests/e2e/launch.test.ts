/** What the launcher, bin/ringway.mjs, starts Bun with. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
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
