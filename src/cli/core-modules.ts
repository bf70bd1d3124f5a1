/**
 * Modules that map the C core, which may not be there yet: loaded when a command needs them, so that others do without.
 * Role: used by the commands. Throws OperatingError, which says how to build the core.
 */
import { OperatingError } from '../operating-error.ts';

async function orExplain<Module>(load: Promise<Module>): Promise<Module> {
  try {
    return await load;
  } catch (error) {
    throw new OperatingError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

export const loadNative = async () => (await orExplain(import('../../ffi/bindings.ts'))).native;
export const loadJudge = () => orExplain(import('./judge-certificates.ts'));
