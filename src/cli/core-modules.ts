/**
 * Modules that map the C core, which may not be there yet: loaded when a command needs them, so that others do without.
 * Role: used by the commands. Loading compiles the core where none fits. Throws OperatingError, which says what that takes.
 */
import { OperatingError } from '../operating-error.ts';

async function orExplain<Module>(load: Promise<Module>): Promise<Module> {
  try {
    return await load;
  } catch (error) {
    throw new OperatingError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

export const loadNative = async () => (await orExplain(import('../core/native.ts'))).native;
export const loadLibraryPath = async () => (await orExplain(import('../core/native.ts'))).libraryPath;
/** Compile the core, whether one fits or not. ret: its path */
export const compileCore = () => orExplain(import('../core/compile.ts').then((library) => library.compileCore()));
export const loadJudge = () => orExplain(import('./judge-certificates.ts'));
export const loadRingTrial = () => orExplain(import('../doctor/ring-trial.ts'));
