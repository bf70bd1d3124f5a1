/**
 * Certificates on trial: loaded as a listener does, into a core that is thrown away, so that the verdict is the same.
 * Role: before certificates in use are replaced, and for `ringway check`. Down: core.ts.
 */
import { native, type TlsFiles } from '../../ffi/bindings.ts';
import { Core } from './core.ts';

/** `use` may try any number of files; each try throws TlsError when they are of no use. */
export function tryCertificates(use: (attempt: (files: TlsFiles) => void) => void): void {
  const wakeFd = native.eventfdCreate();
  try {
    const numbers = { maxConnections: 1, sqpollCpu: -1 };
    const core = new Core({ backend: 'epoll', wakeFd, inboxFdFirst: -1, shmFd: -1, workerIndex: 0, workerCount: 1, numbers });
    try {
      use((files) => core.setTls(0, files));
    } finally {
      core.destroy();
    }
  } finally {
    native.fdClose(wakeFd);
  }
}
