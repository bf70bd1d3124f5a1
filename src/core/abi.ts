/**
 * What of the ABI's names is spoken above this folder: numbers of flags, methods, causes and results.
 * Role: the way to ffi/layout.ts for everybody else. Loading it does not load the core.
 */
export {
  abiVersion,
  abortCause,
  backend,
  capacity,
  closeCause,
  commandFlag,
  eventFlag,
  listenerFlag,
  listenFlag,
  method,
  noSlot,
  proxyHeader,
  result,
  tlsFlag,
} from '../../ffi/layout.ts';
