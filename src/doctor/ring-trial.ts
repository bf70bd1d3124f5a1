/**
 * Whether the core gets an io_uring here: it sets one up, as a worker would, and throws it away.
 * Role: loading this file maps the C core. Down: core.ts.
 */

import type { ResolvedConfig } from '../config/resolve.ts';
import { Core } from '../core/core.ts';
import { native } from '../core/native.ts';
import type { RingTrial } from './kernel.ts';

export function tryRing(io: ResolvedConfig['io']): RingTrial {
  const wakeFd = native.eventfdCreate();
  const numbers = {
    maxConnections: 1,
    ringEntries: io.ringEntries,
    recvBuffers: io.receiveBuffers,
    recvBufferBytes: io.receiveBufferBytes,
    sqpoll: io.sqpoll === false ? 0 : 1,
    sqpollCpu: io.sqpoll === false ? -1 : (io.sqpoll.cpu ?? -1),
    sqpollIdleMs: io.sqpoll === false ? 0 : io.sqpoll.idleMs,
  };
  try {
    new Core({ backend: 'io_uring', wakeFd, inboxFdFirst: -1, shmFd: -1, workerIndex: 0, workerCount: 1, numbers }).destroy();
    return { why: undefined };
  } catch (error) {
    return { why: error instanceof Error ? error.message : String(error) };
  } finally {
    native.fdClose(wakeFd);
  }
}
