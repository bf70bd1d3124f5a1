/**
 * Certificates of an app: its own, and those of server names.
 * Role: reads SSLApp's options. Up: app.ts. Down: connection.ts (TlsFiles).
 */

import type { Core } from '../../core/core.ts';
import { TlsError, type TlsFiles } from '../../core/native.ts';
import { tryCertificates } from '../../core/tls-trial.ts';
import { textOfArgument } from './strings.ts';

/** The core numbers the contexts of server names in 16 bits; 0 is the listener's own. */
const contextsMax = 65535;

interface NamedFiles {
  readonly context: number;
  readonly files: TlsFiles;
}

/** err: Error when an option is neither text nor bytes */
export function readTlsOptions(options: unknown): TlsFiles {
  const given = (options ?? {}) as Readonly<Record<string, unknown>>;
  const text = (name: string) => textOfArgument(given[name]) || undefined;
  return {
    keyFile: text('key_file_name'),
    certFile: text('cert_file_name'),
    caFile: text('ca_file_name'),
    passphrase: text('passphrase'),
    dhParamsFile: text('dh_params_file_name'),
    ciphers: text('ssl_ciphers'),
  };
}

/** What the listeners of one app are given. */
export class Certificates {
  readonly #core: Core;
  readonly #own: TlsFiles;
  readonly #names = new Map<string, NamedFiles>();
  #contexts = 0;

  constructor(core: Core, own: TlsFiles) {
    this.#core = core;
    this.#own = own;
  }

  /** Make a listener speak TLS. err: TlsError */
  apply(listener: number): void {
    this.#core.setTls(listener, this.#own);
    for (const [name, { context, files }] of this.#names) this.#core.setServerName(listener, { name, context, files });
  }

  /** Load everything without using it. err: TlsError */
  try(): void {
    tryCertificates((attempt) => {
      attempt(this.#own);
      for (const { files } of this.#names.values()) attempt(files);
    });
  }

  /** ret: the context that requests for this name come with. err: TlsError when it is of no use, and then nothing has changed */
  add(name: string, options: unknown, listeners: Iterable<number>): number {
    if (this.#contexts === contextsMax) throw new TlsError(`an app has at most ${contextsMax} server names`);
    const entry = { context: this.#contexts + 1, files: readTlsOptions(options) };
    for (const listener of listeners) this.#core.setServerName(listener, { name, ...entry });
    this.#contexts = entry.context;
    this.#names.set(name, entry);
    return entry.context;
  }

  remove(name: string, listeners: Iterable<number>): void {
    if (!this.#names.delete(name)) return;
    for (const listener of listeners) this.#core.removeServerName(listener, name);
  }

  contextOf(name: string): number | undefined {
    return this.#names.get(name)?.context;
  }
}
