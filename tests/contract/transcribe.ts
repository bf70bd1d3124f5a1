// For the one who writes scenarios: prints what is seen on one side, or where the two differ.
//
//     bun tests/contract/transcribe.ts original|ringway|both <file of scenarios> [words of a scenario's name]
import { join } from 'node:path';
import { here, type Side } from './program.ts';
import { runScenario, type Scenario, type Transcript } from './side.ts';

const [wanted = 'both', file = '', words = ''] = process.argv.slice(2);
const modulePath = join(here, 'scenarios', `${file}.mjs`);
const { scenarios }: { scenarios: Record<string, Scenario> } = await import(modulePath);

const short = (value: unknown) => (JSON.stringify(value) ?? 'none').replace(/^(.{300}).*$/s, '$1…');

function print(transcript: Transcript): void {
  for (const [label, value] of Object.entries(transcript.client)) console.log(`  ${label}: ${short(value)}`);
  for (const line of transcript.server) console.log(`    ${short(line)}`);
  console.log(`  ${transcript.process}`);
}

/** What each side has that the other has not. */
function printDifferences(original: Transcript, ours: Transcript): void {
  const lines = (transcript: Transcript) => [
    ...Object.entries(transcript.client).map(([label, value]) => `${label}: ${JSON.stringify(value)}`),
    ...transcript.server.map((line) => JSON.stringify(line)),
    transcript.process,
  ];
  const [theirs, own] = [lines(original), lines(ours)];
  if (theirs.join('\n') === own.join('\n')) {
    console.log('  the same');
    return;
  }
  for (const line of theirs) if (!own.includes(line)) console.log(`  - ${line.slice(0, 600)}`);
  for (const line of own) if (!theirs.includes(line)) console.log(`  + ${line.slice(0, 600)}`);
  if (theirs.toSorted().join('\n') === own.toSorted().join('\n'))
    console.log(`  another order: ${short(original.server)}\n${short(ours.server)}`);
}

for (const [name, scenario] of Object.entries(scenarios)) {
  if (!name.includes(words)) continue;
  console.log(`== ${name}`);
  const run = (side: Side) => runScenario(side, modulePath, name, scenario);
  try {
    if (scenario.ours !== undefined && wanted !== 'original')
      printDifferences({ ...scenario.ours, process: 'lives' }, await run('ringway'));
    else if (wanted === 'both') printDifferences(...(await Promise.all([run('original'), run('ringway')])));
    else print(await run(wanted as Side));
  } catch (error) {
    console.log(`  FAILED ${String(error).slice(0, 1000)}`);
  }
}
