#!/usr/bin/env bun
/** Entry of the `ringway` command. */
import { runCli } from './cli/cli.ts';
import { outputsSettled } from './output.ts';

/** How long the end of the process waits for whoever reads the log. */
const lastWordsMs = 500;

const exitCode = await runCli(process.argv.slice(2));
await outputsSettled(lastWordsMs);
process.exit(exitCode);
