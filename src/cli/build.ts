/** `ringway build`: compile the C core here, whether one fits or not. */
import { compileCore, loadLibraryPath } from './core-modules.ts';

/** ret: what to print. Throws OperatingError. */
export async function build(): Promise<string> {
  const compiled = await compileCore();
  // Loading it is the proof that it fits.
  const used = await loadLibraryPath();
  return used === compiled ? `compiled ${compiled}` : `compiled ${compiled}, but ${used} is used instead`;
}
