/**
 * Whether the certificates of a config can be used, and where in it is written what cannot.
 * Role: for `ringway check`, before a start, and before certificates are loaded again. Loading this file maps the C core.
 */

import { ConfigError } from '../config/config-error.ts';
import { pathText } from '../config/mistakes.ts';
import type { ResolvedConfig } from '../config/resolve.ts';
import { certificatesOf, fileOptions, type TlsSettings } from '../config/tls.ts';
import { TlsError, type TlsFiles } from '../core/native.ts';
import { tryCertificates } from '../core/tls-trial.ts';
import type { CertificateMistake } from '../supervisor/certificates.ts';

export function judgeCertificates(tls: TlsSettings): CertificateMistake[] {
  const mistakes: CertificateMistake[] = [];
  const judge = (path: readonly PropertyKey[], files: TlsFiles, load: (files: TlsFiles) => void) => {
    try {
      load(files);
    } catch (error) {
      if (!(error instanceof TlsError)) throw error;
      // A name has options of its address, where they are reported.
      if (mistakes.some(({ message }) => message === error.message)) return;
      mistakes.push({ path: [...path, ...optionOf(files, error.message)], message: error.message });
    }
  };
  tryCertificates((load) => {
    judge([], tls.files, load);
    for (const { name, files } of tls.serverNames) judge(['serverNames', name], files, load);
  });
  return mistakes;
}

/** Throws ConfigError with every certificate of the config that cannot be used. */
export function checkCertificates(config: ResolvedConfig, where: string): void {
  const mistakes = config.listen.flatMap(({ tls }) => {
    if (tls === undefined) return [];
    return judgeCertificates(tls).map(({ path, message }) => `${pathText([...tls.path, ...path])}: ${message}`);
  });
  if (mistakes.length > 0) throw new ConfigError(where, mistakes);
}

/** The option whose value the core's sentence names first, or none. */
function optionOf(files: TlsFiles, message: string): string[] {
  const named = certificatesOf(files)
    .flatMap((each) =>
      Object.entries({ ...fileOptions, ciphers: 'ciphers' } as const).map(([file, option]) => ({
        option,
        at: message.indexOf(`'${each[file as keyof typeof fileOptions | 'ciphers']}'`),
      })),
    )
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at);
  return named.slice(0, 1).map(({ option }) => option);
}
