// `npm test`: set-up, then every suite, then one line for each and the sum as the very last line. Ends with 1 when anything failed,
// crashed, hung or ran no tests. With names (npm test -- 'C units' e2e), only the suites whose name contains one of them.
import { setup } from './setup.mjs';
import { runStep, summaryLine } from './step.mjs';
import { bunSuites, coreUnits, endToEnd, fuzz, layout } from './suites.mjs';

setup('test');

const wanted = process.argv.slice(2);
/** Those of one row run at the same time. */
const rows = [
  [layout],
  [coreUnits],
  [fuzz(3)],
  ...bunSuites('unit', 'contract', 'model').map((step) => [step]),
  endToEnd(),
  bunSuites('image'),
].map((row) => row.filter((step) => wanted.length === 0 || wanted.some((name) => step.name.includes(name))));

const outcomes = [];
for (const row of rows) {
  // The output of one is shown as it comes, that of others when they have ended, so that each stays in one piece.
  const [first, ...others] = row;
  if (first === undefined) continue;
  console.log(`\n== ${first.name}`);
  const [outcome, ...rest] = await Promise.all([runStep(first, true), ...others.map((step) => runStep(step, false))]);
  for (const { name, output } of rest) console.log(`\n== ${name}\n${output}`);
  outcomes.push(outcome, ...rest);
}

const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0);
const failed = outcomes.reduce((sum, outcome) => sum + outcome.failed, 0);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
console.log(`\n${outcomes.map(summaryLine).join('\n')}\n`);
console.log(`${passed} passed, ${failed} failed`);
