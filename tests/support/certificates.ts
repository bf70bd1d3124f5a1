/**
 * Certificates for tests, made with the openssl command: an authority, and what it signs.
 * Role: used by tests of TLS. Keys are of P-256, which takes a moment to make, unless another kind is asked for.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Certificate {
  /** Contents of the PEM files. */
  readonly cert: string;
  readonly key: string;
}

export interface Authority extends Certificate {
  /** `names`: as subjectAltName has them, such as 'DNS:localhost,IP:127.0.0.1'. `subject`: the common name. */
  issue(subject: string, names: string, more?: { readonly passphrase?: string; readonly kind?: 'ec' | 'rsa' }): Certificate;
  /** Its certificate as a file, for clients. */
  readonly file: string;
  /** Files of an issued certificate, for clients. */
  filesOf(certificate: Certificate): { readonly cert: string; readonly key: string };
  dispose(): void;
}

function openssl(...args: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(['openssl', ...args], { stdout: 'ignore', stderr: 'pipe' });
  if (exitCode !== 0) throw new Error(`openssl ${args.join(' ')} ended with ${exitCode}: ${stderr}`);
}

export function createAuthority(name = 'Test Authority'): Authority {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-certificates-'));
  const files = new Map<Certificate, { cert: string; key: string }>();
  let count = 0;
  const make = (
    subject: string,
    extensions: readonly string[],
    passphrase: string | undefined,
    signer: readonly string[],
    kind: 'ec' | 'rsa' = 'ec',
  ): Certificate => {
    const place = { cert: join(folder, `${++count}.pem`), key: join(folder, `${count}.key`) };
    openssl(
      ...[
        'req',
        '-x509',
        '-newkey',
        ...(kind === 'rsa' ? ['rsa:2048'] : ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']),
        '-days',
        '30',
        '-subj',
        `/CN=${subject}`,
      ],
      ...['-out', place.cert, '-keyout', place.key],
      ...extensions.flatMap((extension) => ['-addext', extension]),
      ...(passphrase === undefined ? ['-nodes'] : ['-passout', `pass:${passphrase}`]),
      ...signer,
    );
    const certificate = { cert: readFileSync(place.cert, 'utf8'), key: readFileSync(place.key, 'utf8') };
    files.set(certificate, place);
    return certificate;
  };
  const own = make(name, [], undefined, []);
  const { cert: file, key } = files.get(own) as { cert: string; key: string };
  return {
    ...own,
    file,
    issue: (subject, names, { passphrase, kind } = {}) =>
      make(subject, [`subjectAltName=${names}`, 'basicConstraints=critical,CA:FALSE'], passphrase, ['-CA', file, '-CAkey', key], kind),
    filesOf: (certificate) => files.get(certificate) as { cert: string; key: string },
    dispose: () => rmSync(folder, { recursive: true, force: true }),
  };
}
