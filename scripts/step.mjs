// One step of `npm test` or `npm run check`: a program run to its end, its output shown and kept, and the tests it reports counted.
import { spawn } from 'node:child_process';
import { root } from './setup.mjs';

/**
 * @typedef {object} Step
 * @property {string} name
 * @property {string[]} command
 * @property {(output: string) => Count} [count] what its output says; without it the step is one test, which its exit code decides
 * @property {number} [timeoutMs] a step that takes longer hangs
 *
 * @typedef {{passed: number, failed: number}} Count
 * @typedef {Count & {name: string, ms: number, note: string, output: string}} Outcome
 */

const timeoutMsDefault = 15 * 60_000;

/** Sum of the first group over all matches. @param {string} output @param {RegExp} pattern */
function sum(output, pattern) {
  let total = 0;
  for (const match of output.matchAll(pattern)) total += Number(match[1]);
  return total;
}

/** cmocka: one summary a binary. @param {string} output @returns {Count} */
export function countCmocka(output) {
  return { passed: sum(output, /^\[ {2}PASSED {2}\] (\d+) test\(s\)\./gm), failed: sum(output, /^\[ {2}FAILED {2}\] (\d+) test\(s\)/gm) };
}

/** libFuzzer, by make's line for each target that found nothing. @param {string} output @returns {Count} */
export function countFuzz(output) {
  return { passed: [...output.matchAll(/^\w+_fuzz: no finding in /gm)].length, failed: 0 };
}

/** bun test: one summary a run. @param {string} output @returns {Count} */
export function countBun(output) {
  return { passed: sum(output, /^ *(\d+) pass$/gm), failed: sum(output, /^ *(\d+) fail$/gm) };
}

/**
 * Kill a step and all it has started: it leads a process group of its own.
 * @param {import('node:child_process').ChildProcess} child
 */
function killGroup(child) {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}

/**
 * @param {Step} step
 * @param {boolean} show print its output as it comes
 * @returns {Promise<Outcome>}
 */
export function runStep(step, show) {
  const started = Date.now();
  const [command = '', ...args] = step.command;
  const child = spawn(command, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' },
  });
  const timeoutMs = step.timeoutMs ?? timeoutMsDefault;
  let hung = false;
  const timer = setTimeout(() => {
    hung = true;
    killGroup(child);
  }, timeoutMs);
  const interrupted = () => {
    killGroup(child);
    process.exit(130);
  };
  process.once('SIGINT', interrupted);
  process.once('SIGTERM', interrupted);

  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8');
    stream.on('data', (text) => {
      output += text;
      if (show) process.stdout.write(text);
    });
  }

  return new Promise((resolve) => {
    /** @param {string} ended how, when not well; empty when well */
    const finish = (ended) => {
      clearTimeout(timer);
      process.off('SIGINT', interrupted);
      process.off('SIGTERM', interrupted);
      const counted = step.count?.(output) ?? { passed: ended === '' ? 1 : 0, failed: 0 };
      const note = ended === '' && counted.passed + counted.failed === 0 ? 'ran no tests' : ended;
      // A crash before the summary, a build that fails, a suite without tests: each counts as one failure that nobody reported.
      const failed = note !== '' && counted.failed === 0 ? 1 : counted.failed;
      resolve({ name: step.name, passed: counted.passed, failed, ms: Date.now() - started, note, output });
    };
    child.on('error', (error) => finish(`cannot run ${command}: ${error.message}`));
    child.on('close', (code, signal) => {
      if (hung) finish(`took more than ${timeoutMs / 1000} s and was killed`);
      else finish(code === 0 ? '' : `ended with ${signal ?? `exit code ${code}`}`);
    });
  });
}

/** @param {Outcome} outcome */
export function summaryLine(outcome) {
  const verdict = outcome.failed > 0 || outcome.note !== '' ? 'FAIL' : 'ok';
  const counts = `${outcome.passed} passed, ${outcome.failed} failed`;
  return `${verdict.padEnd(5)}${outcome.name.padEnd(16)}${counts.padEnd(26)}${(outcome.ms / 1000).toFixed(1).padStart(6)} s  ${outcome.note}`.trimEnd();
}
