// The steps that `npm test` and `npm run check` are made of.
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { root } from './setup.mjs';
import { countBun, countCmocka, countFuzz } from './step.mjs';

const bun = join(root, 'node_modules/.bin/bun');
const jobs = availableParallelism?.() ?? cpus().length;

/** @param {string[]} targets */
function make(...targets) {
  return ['make', '--silent', '-C', 'ffi', '-j', String(jobs), ...targets];
}

/** @typedef {import('./step.mjs').Step} Step */

/** @type {Step} ffi/layout.ts says what the headers say */
export const layout = { name: 'layout', command: make('layout-check') };

/** @type {Step} */
export const coreUnits = { name: 'C units', command: make('test'), count: countCmocka };

/** @param {number} seconds for each target @returns {Step} */
export function fuzz(seconds) {
  return { name: 'fuzz smoke', command: make('fuzz', `FUZZ_SECONDS=${seconds}`), count: countFuzz };
}

/**
 * Test files as one step, several at once, each with a process of its own: most of their time is spent waiting.
 * @param {string} name
 * @param {number} atOnce
 * @param {string[]} paths
 * @returns {Step}
 */
function bunTests(name, atOnce, paths) {
  return { name, command: [bun, 'test', '--timeout', '30000', `--parallel=${atOnce}`, ...paths], count: countBun };
}

/** @param {string} folder under tests/ */
function hasTests(folder) {
  const path = join(root, 'tests', folder);
  return existsSync(path) && readdirSync(path, { recursive: true }).some((file) => /\.test\.tsx?$/.test(String(file)));
}

/**
 * The suites under tests/ that `bun test` runs. One that is not there yet is left out; the units always count.
 * @param {string[]} folders
 * @returns {Step[]}
 */
export function bunSuites(...folders) {
  return folders
    .filter((folder) => folder === 'unit' || hasTests(folder))
    .map((folder) => bunTests(`bun ${folder}`, jobs + 1, [`./tests/${folder}/`]));
}

/** Files of tests/e2e that spend their time waiting: for servers that fail over, for drains, for npm. They run beside the others. */
const patient = ['nats-link', 'operations', 'package', 'publishing', 'redis', 'redis-link', 'reload', 'top', 'upgrade'];

/** @returns {[Step, Step]} the end-to-end tests in two parts, to be run at the same time */
export function endToEnd() {
  const files = readdirSync(join(root, 'tests/e2e')).filter((file) => file.endsWith('.test.ts'));
  const isPatient = (/** @type {string} */ file) => patient.includes(file.slice(0, -'.test.ts'.length));
  const step = (/** @type {string} */ name, /** @type {(file: string) => boolean} */ isPart) =>
    bunTests(
      name,
      Math.max(2, jobs),
      files.filter(isPart).map((file) => `./tests/e2e/${file}`),
    );
  return [step('bun e2e', (file) => !isPatient(file)), { ...step('bun e2e, patient', isPatient), timeoutMs: 20 * 60_000 }];
}

// Biome and TypeScript are programs behind a launcher for Node: given to what runs this file, they need no Node beside Bun.

/** @type {Step} */
export const style = {
  name: 'format, lint',
  command: [process.execPath, 'node_modules/@biomejs/biome/bin/biome', 'check', '--error-on-warnings', '.'],
};

/** @type {Step} C as .clang-format has it, and all C that there is but what is built */
export const styleOfC = { name: 'format of C', command: make('format-check') };

/** @type {Step} */
export const types = { name: 'types', command: [process.execPath, 'node_modules/typescript/bin/tsc', '--noEmit', '-p', '.'] };
