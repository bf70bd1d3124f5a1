/** The TypeScript compiler of this tree, as tests of types, pages and projects run it. */
import { join } from 'node:path';
import { RunningProgram } from './running-program.ts';

const root = join(import.meta.dir, '..', '..');

/** `words`: its options; `cwd`: where it looks for a tsconfig.json that these do not name. ret: all that it says, '' of sound programs */
export async function compile(words: readonly string[], cwd = root): Promise<{ readonly said: string; readonly code: number }> {
  const compiler = new RunningProgram([process.execPath, join(root, 'node_modules/typescript/bin/tsc'), ...words], {
    cwd,
    env: { ...process.env, NO_COLOR: '1' },
  });
  const code = await compiler.ended();
  return { said: compiler.output(), code };
}
