/**
 * Certificates while the gateway runs: judged, and loaded again when their files change. A reload has new watchers, for what the new config says.
 *
 * Role: says which listeners have new certificates that are good; workers load them. On a mistake nothing is told to anybody, so all
 * workers keep the old ones. Up: reload.ts. Down: config/tls.ts; the judge is cli/judge-certificates.ts.
 */
import { statSync } from 'node:fs';
import { pathText } from '../config/mistakes.ts';
import { certificatesOf, fileOptions, type TlsSettings } from '../config/tls.ts';
import type { Log } from '../log.ts';
import { errorCode } from '../operating-error.ts';

/** Something wrong with `tls`: where within it, and a sentence. */
export interface CertificateMistake {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** ret: all that is wrong; none: every certificate can be used */
export type CertificateJudge = (tls: TlsSettings) => readonly CertificateMistake[];

export interface CertificateReloadsOptions {
  readonly listeners: readonly { readonly index: number; readonly label: string; readonly tls: TlsSettings | undefined }[];
  readonly judge: CertificateJudge;
  /** Make every worker load the certificates of these listeners again. */
  tell(listeners: readonly number[]): void;
  readonly log: Log;
}

interface Watched {
  readonly index: number;
  readonly label: string;
  readonly tls: TlsSettings;
  /** Of the files when they were last judged. */
  seen: string;
}

export class CertificateReloads {
  readonly #options: CertificateReloadsOptions;
  readonly #watched: readonly Watched[];
  readonly #timers: readonly ReturnType<typeof setInterval>[];

  constructor(options: CertificateReloadsOptions) {
    this.#options = options;
    this.#watched = options.listeners.flatMap(({ index, label, tls }) =>
      tls === undefined ? [] : [{ index, label, tls, seen: fingerprint(tls) }],
    );
    this.#timers = this.#watched.flatMap((listener) => {
      const { reloadInterval } = listener.tls;
      return reloadInterval === 0 ? [] : [setInterval(() => this.#look(listener), reloadInterval * 1000)];
    });
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer);
  }

  #judge(tls: TlsSettings): readonly CertificateMistake[] {
    try {
      return this.#options.judge(tls);
    } catch (error) {
      // Out of descriptors or memory: this process must live on.
      return [{ path: [], message: error instanceof Error ? error.message : String(error) }];
    }
  }

  #look(listener: Watched): void {
    const now = fingerprint(listener.tls);
    if (now !== listener.seen) this.#load(listener, now);
  }

  /** `now` is taken before the files are read: a change meanwhile is seen at the next look. */
  #load(listener: Watched, now: string): void {
    const { log } = this.#options;
    const { label, index } = listener;
    listener.seen = now;
    const mistakes = this.#judge(listener.tls);
    if (mistakes.length > 0) {
      const reasons = mistakes.map(({ path, message }) => `${pathText([...listener.tls.path, ...path])}: ${message}`).join('; ');
      log.error({ listener: label }, `the certificates of ${label} stay as they are, the new ones cannot be used: ${reasons}`);
      return;
    }
    this.#options.tell([index]);
    log.info({ listener: label }, `${label} takes new connections with the certificates that were just loaded again`);
  }
}

/** Tells whether any file has been written or replaced. */
function fingerprint(tls: TlsSettings): string {
  const all = [tls.files, ...tls.serverNames.map(({ files }) => files)].flatMap(certificatesOf);
  const names = Object.keys(fileOptions) as (keyof typeof fileOptions)[];
  const paths = all.flatMap((files) => names.flatMap((name) => files[name] ?? []));
  return paths.map(identity).join(' ');
}

function identity(path: string): string {
  try {
    const { dev, ino, mtimeNs, size } = statSync(path, { bigint: true });
    return `${dev}:${ino}:${mtimeNs}:${size}`;
  } catch (error) {
    return errorCode(error);
  }
}
