/** Compiling the core, for who does not want to load it. Role: the way to ffi/library.ts for everybody else. */
export { compileCore } from '../../ffi/library.ts';
