// `npm run check`: the gate before a commit, under a minute. Set-up builds the C core; then style and types together; then
// the units of C and of TypeScript, which wait as much as they compute, beside each other; then the fuzzers. Output is shown of what fails only.
import { setup } from './setup.mjs';
import { runStep, summaryLine } from './step.mjs';
import { bunSuites, coreUnits, fuzz, layout, style, styleOfC, types } from './suites.mjs';

const started = Date.now();
setup('check');

let failed = 0;
for (const together of [[style, types, layout, styleOfC], [coreUnits, ...bunSuites('unit')], [fuzz(1)]]) {
  for (const outcome of await Promise.all(together.map((step) => runStep(step, false)))) {
    const bad = outcome.failed > 0 || outcome.note !== '';
    if (bad) {
      failed += 1;
      console.log(`\n== ${outcome.name}\n${outcome.output}`);
    }
    console.log(summaryLine(outcome));
  }
}
process.exitCode = failed > 0 ? 1 : 0;
console.log(`${failed === 0 ? 'all well' : `${failed} steps failed`}, ${((Date.now() - started) / 1000).toFixed(1)} s`);
