// `npm test`: set-up, then every suite, then one line for each and the sum as the very last line. Ends with 1 when anything failed,
// crashed, hung or ran no tests. With names (npm test -- 'C units' e2e), only the suites whose name contains one of them.
import { setup } from './setup.mjs';
import { runStep, summaryLine } from './step.mjs';
import { bunSuites, coreUnits, fuzz, layout } from './suites.mjs';

setup('test');

const wanted = process.argv.slice(2);
const steps = [layout, coreUnits, fuzz(3), ...bunSuites('unit', 'contract', 'e2e', 'image')].filter(
  (step) => wanted.length === 0 || wanted.some((name) => step.name.includes(name)),
);

const outcomes = [];
for (const step of steps) {
  console.log(`\n== ${step.name}`);
  outcomes.push(await runStep(step, true));
}

const passed = outcomes.reduce((sum, outcome) => sum + outcome.passed, 0);
const failed = outcomes.reduce((sum, outcome) => sum + outcome.failed, 0);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
console.log(`\n${outcomes.map(summaryLine).join('\n')}\n`);
console.log(`${passed} passed, ${failed} failed`);
