/** A certificate for 127.0.0.1, made for this run and gone with it. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface CertificateFiles {
  readonly key: string;
  readonly cert: string;
}

let folder: string | undefined;

/** The same files each time. Throws when the openssl command is not there. */
export function certificateFiles(): CertificateFiles {
  const isNew = folder === undefined;
  folder ??= mkdtempSync(join(tmpdir(), 'ringway-bench-'));
  const files = { key: join(folder, 'key.pem'), cert: join(folder, 'cert.pem') };
  if (isNew) makeCertificate(files);
  return files;
}

export function removeCertificate(): void {
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
}

function makeCertificate({ key, cert }: CertificateFiles): void {
  const kind = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  try {
    execFileSync('openssl', ['req', ...kind, ...name, '-keyout', key, '-out', cert], { stdio: 'pipe' });
  } catch (error) {
    throw new Error(`the openssl command could not make a certificate: ${error instanceof Error ? error.message : error}`);
  }
}
