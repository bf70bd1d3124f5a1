/**
 * The listening sockets of a worker, and the numbers that they have in its core.
 *
 * Role: the first socket of an address has the address's place in the config as its number. A worker may have more of an address, when the
 * node had more workers before (supervisor/listeners.ts): those have numbers behind all addresses, and requests name the
 * address. Up: worker/main.ts. Down: core/core.ts.
 */

import { keyOf } from '../config/address-key.ts';
import { ConfigError } from '../config/config-error.ts';
import { pathText } from '../config/mistakes.ts';
import type { ListenAddress, ResolvedConfig } from '../config/resolve.ts';
import { listenerFlag } from '../core/abi.ts';
import type { Core } from '../core/core.ts';
import { native, TlsError } from '../core/native.ts';
import type { Log } from '../log.ts';
import type { WorkerBoot, WorkerListener } from '../process/boot.ts';
import { applyTls } from './tls.ts';

interface Place {
  readonly fd: number;
  /** In the core. */
  readonly number: number;
  /** In the config. */
  readonly index: number;
  readonly address: ListenAddress;
}

export class WorkerListeners {
  readonly #core: Core;
  readonly #places: readonly Place[];
  /** What the supervisor calls its addresses: places in the config that it has read. */
  readonly #told: ReadonlyMap<number, number>;
  #isAccepting = false;

  /** Throws ConfigError when a certificate cannot be used, and Error when the config has lost an address since it was read by the supervisor. */
  constructor(core: Core, boot: WorkerBoot, config: ResolvedConfig) {
    this.#core = core;
    let next = config.listen.length;
    const seen = new Set<number>();
    const told = new Map<number, number>();
    this.#told = told;
    this.#places = boot.listeners.map((listener) => {
      const { index, address } = findAddress(config.listen, listener);
      const number = seen.has(index) ? next++ : index;
      seen.add(index);
      told.set(listener.index, index);
      return { fd: listener.fd, number, index, address };
    });
    for (const { number, address } of this.#places) {
      const { tls } = address;
      if (tls === undefined) continue;
      try {
        applyTls(core, number, tls);
      } catch (error) {
        if (!(error instanceof TlsError)) throw error;
        throw new ConfigError(boot.configPath, [`${pathText(tls.path)}: ${error.message}`]);
      }
    }
  }

  /** Accept connections; once. */
  accept(): void {
    if (this.#isAccepting) return;
    this.#isAccepting = true;
    for (const { fd, number, index, address } of this.#places)
      this.#core.listen(fd, number, address.proxyProtocol ? listenerFlag.proxyRequired : 0, index);
  }

  /** Load the certificates of these addresses again. */
  reloadCertificates(indexes: readonly number[], log: Log): void {
    const wanted = new Set(indexes.map((index) => this.#told.get(index)));
    for (const { number, index, address } of this.#places) {
      if (!wanted.has(index) || address.tls === undefined) continue;
      try {
        applyTls(this.#core, number, address.tls);
      } catch (error) {
        // The supervisor has just loaded them: the files have changed since, and it will see that too.
        log.error({ err: error }, 'certificates could not be loaded again; the old ones stay in use');
      }
    }
  }

  /** Only after the core has stopped accepting. */
  close(): void {
    for (const { fd } of this.#places) native.fdClose(fd);
  }
}

/** Never another address than the supervisor means: it might be one without TLS. */
function findAddress(
  addresses: readonly ListenAddress[],
  { index, key, label }: WorkerListener,
): { index: number; address: ListenAddress } {
  const isIt = (address: ListenAddress | undefined): address is ListenAddress => address !== undefined && keyOf(address) === key;
  const there = addresses[index];
  if (isIt(there)) return { index, address: there };
  const found = addresses.findIndex(isIt);
  const address = addresses[found];
  if (address === undefined)
    throw new Error(`the config does not listen on ${label} any more; run 'ringway reload' to apply what has changed in it`);
  return { index: found, address };
}
