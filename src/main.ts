#!/usr/bin/env bun
/** Entry of the `ringway` command. */
import { probeWord } from './cli/probe-word.ts';
import { defaultConfigPath } from './config/defaults.ts';
import { outputsSettled } from './output.ts';

/** How long the end of the process waits for whoever reads the log. */
const lastWordsMs = 500;

/** Never returns: whoever has started this process ends it. */
async function readConfig([path = defaultConfigPath, withoutCore]: readonly string[]): Promise<never> {
  const { probe } = await import('./cli/probe.ts');
  return probe(path, withoutCore === undefined);
}

const words = process.argv.slice(2);
// No command of people's: it does without what they need.
const exitCode = words[0] === probeWord ? await readConfig(words.slice(1)) : await (await import('./cli/cli.ts')).runCli(words);
await outputsSettled(lastWordsMs);
process.exit(exitCode);
