/**
 * What a process asks of the system through the core's library, beside a core: sockets, shared memory, eventfds, CPUs.
 * Role: the way to ffi/bindings.ts for everybody else. Loading it loads the library, and compiles it where none fits; its types do not.
 */
export { libraryPath, native, type SharedStats, TlsError, type TlsFiles, type TopicMemory } from '../../ffi/bindings.ts';
