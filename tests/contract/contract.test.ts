/**
 * The contract: every scenario runs against the original under Node and against Ringway under Bun, and what was seen must be equal but
 * for the differences that the scenario declares. What the original's build lacks is held against what the scenario says.
 */
import { describe, expect, test } from 'bun:test';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { compare } from './compare.ts';
import { here, type Side, whyNot, whyNotNewer } from './program.ts';
import { runScenario, type Scenario } from './side.ts';

/** Long enough for the idle timeouts of a scenario on a busy machine. */
const timeoutMs = 90_000;

const folder = join(here, 'scenarios');
const modules = readdirSync(folder)
  .filter((file) => file.endsWith('.mjs'))
  .sort();

test('the original runs here under Node', () => {
  expect(whyNot, 'the tests that compare with it are skipped').toBeUndefined();
});

if (whyNotNewer !== undefined) console.warn(whyNotNewer);

const declared = new Set<string>();

for (const file of modules) {
  const modulePath = join(folder, file);
  const { scenarios }: { scenarios: Record<string, Scenario> } = await import(modulePath);
  describe(file.replace('.mjs', ''), () => {
    for (const [name, scenario] of Object.entries(scenarios)) {
      for (const { id } of scenario.differences ?? []) declared.add(id);
      const run = (side: Side) => runScenario(side, modulePath, name, scenario);
      const { ours } = scenario;
      if (ours !== undefined) {
        test(name, async () => expect(await run('ringway')).toEqual({ ...ours, process: 'lives' }), timeoutMs);
        continue;
      }
      test.skipIf((scenario.isNewer ? whyNotNewer : whyNot) !== undefined)(
        name,
        async () => {
          const [original, ringway] = await Promise.all([run('original'), run('ringway')]);
          compare(original, ringway, scenario.differences);
        },
        timeoutMs,
      );
    }
  });
}

test('every difference is explained in docs/uws.md', () => {
  const page = readFileSync(join(here, '../../docs/uws.md'), 'utf8');
  expect([...declared].filter((id) => !page.includes(`\`${id}\``))).toEqual([]);
});
