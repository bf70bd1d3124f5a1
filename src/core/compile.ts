/** Compiling the core, for who does not want to load it. Role: the way to ffi/library.ts for everybody else. */
import { libraryPaths } from '../../ffi/library.ts';

export { compileCore } from '../../ffi/library.ts';

/** Is there a file to load? Else loading the core compiles it first. */
export const isCompiled = (): boolean => libraryPaths().next().done !== true;
