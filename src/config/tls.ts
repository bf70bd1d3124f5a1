/**
 * The `tls` of a listening address: paths made absolute, files looked for, names checked.
 * Role: a part of resolve.ts. What the files hold is judged where they are loaded (supervisor/certificates.ts).
 */
import { accessSync, constants, statSync } from 'node:fs';
import { resolve } from 'node:path';
import type { CertificateOptions, TlsOptions } from '../api/define.ts';
import { tlsFlag } from '../core/abi.ts';
import type { TlsFiles } from '../core/native.ts';
import { errorCode } from '../operating-error.ts';
import { defaults, serverNameLengthMax, serverNamesMax } from './defaults.ts';
import { show } from './show.ts';

/** A certificate for a server name. */
export interface ServerNameSettings {
  readonly name: string;
  readonly files: TlsFiles;
}

/** TLS of one address. Paths are absolute. */
export interface TlsSettings {
  /** Where it stands in the config. */
  readonly path: readonly PropertyKey[];
  readonly files: TlsFiles;
  /** In the order of the config. */
  readonly serverNames: readonly ServerNameSettings[];
  /** Seconds; 0: never. */
  readonly reloadInterval: number;
}

/** Told of every mistake: where within the config, and what to write instead. */
export type Complain = (path: readonly PropertyKey[], message: string) => void;

/** The option that holds each file. */
export const fileOptions = {
  certFile: 'cert',
  keyFile: 'key',
  caFile: 'ca',
  dhParamsFile: 'dhParams',
  crlFile: 'crl',
  ocspFile: 'ocsp',
} as const;

/** The certificates of a name, the first with how TLS is spoken. */
export function certificatesOf(files: TlsFiles): readonly TlsFiles[] {
  return files.also === undefined ? [files] : [files, ...certificatesOf(files.also)];
}

const versions = { 'TLSv1.2': 0x0303, 'TLSv1.3': 0x0304 } as const;

function refuseWithoutCa(options: CertificateOptions, files: TlsFiles, path: readonly PropertyKey[], complain: Complain): void {
  if (files.caFile !== undefined) return;
  for (const name of ['clientCertificate', 'crl'] as const)
    if (options[name] !== undefined) complain([...path, name], 'needs ca, the authorities of client certificates');
}

/** As the core takes them (ffi/core/connection/tls_names.c). */
const serverName = /^(?:\*\.)?[\w-]+(?:\.[\w-]+)*$/;

/** `folder`: what paths are relative to. */
export function resolveTls(tls: TlsOptions, path: readonly PropertyKey[], folder: string, complain: Complain): TlsSettings {
  const written = resolveFiles(tls, path, folder, complain);
  const files = { minVersion: versions[defaults.tls.minVersion], ...written };
  refuseWithoutCa(tls, written, path, complain);
  // A name is as its address, unless it says otherwise: one that asks for no client certificate by oversight would be the way in.
  const { certFile, keyFile, passphrase, ocspFile, also, ...shared } = files;
  const names = Object.entries(tls.serverNames ?? {});
  if (names.length > serverNamesMax) complain([...path, 'serverNames'], `has ${names.length} names; write at most ${serverNamesMax}`);
  const seen = new Map<string, string>();
  const serverNames = names.map(([name, options]) => {
    const place = [...path, 'serverNames', name];
    if (name.length > serverNameLengthMax || !serverName.test(name))
      complain(place, `${show(name)} is no server name; write one such as 'example.org' or '*.example.org'`);
    const earlier = seen.get(name.toLowerCase());
    if (earlier !== undefined) complain(place, `is the same name as '${earlier}'; remove one of them`);
    seen.set(name.toLowerCase(), name);
    const named = { ...shared, ...resolveFiles(options, place, folder, complain) };
    refuseWithoutCa(options, named, place, complain);
    return { name, files: named };
  });
  return {
    path,
    files,
    serverNames,
    reloadInterval: tls.reloadInterval ?? defaults.tls.reloadInterval,
  };
}

/** Only what is written, so that it can be laid over what an address has. */
function resolveFiles(options: CertificateOptions, path: readonly PropertyKey[], folder: string, complain: Complain): TlsFiles {
  const file = (at: readonly PropertyKey[], written: string): string => {
    const absolute = resolve(folder, written);
    const problem = fileProblem(absolute);
    if (problem !== undefined) complain([...path, ...at], problem);
    return absolute;
  };
  const list = (name: 'cert' | 'key' | 'ocsp'): readonly string[] => {
    const written = options[name];
    if (written === undefined) return [];
    return typeof written === 'string' ? [file([name], written)] : written.map((each, index) => file([name, index], each));
  };
  const { ca, clientCertificate, minVersion, dhParams, ciphers, crl, passphrase } = options;
  const [certs, keys, responses] = [list('cert'), list('key'), list('ocsp')];
  for (const [name, files] of [['key', keys] as const, ['ocsp', responses] as const]) {
    if (files.length !== certs.length && (name === 'key' || files.length > 0))
      complain([...path, name], `has ${files.length} and cert ${certs.length}; write one for each certificate, in the same order`);
  }
  const certificates = certs.map((certFile, index) => ({
    certFile,
    keyFile: keys[index],
    ...(responses[index] === undefined ? {} : { ocspFile: responses[index] }),
    ...(passphrase === undefined ? {} : { passphrase }),
  }));
  return {
    ...certificates.reduceRight<TlsFiles>((also, each) => (also.certFile === undefined ? each : { ...each, also }), {}),
    // A list of revoked certificates is of no use for other authorities.
    ...(ca === undefined ? {} : { caFile: ca === false ? undefined : file(['ca'], ca), crlFile: undefined }),
    ...(crl === undefined ? {} : { crlFile: file(['crl'], crl) }),
    ...(clientCertificate === undefined ? {} : { flags: clientCertificate === 'optional' ? tlsFlag.clientOptional : 0 }),
    ...(dhParams === undefined ? {} : { dhParamsFile: file(['dhParams'], dhParams) }),
    ...(ciphers === undefined ? {} : { ciphers }),
    ...(minVersion === undefined ? {} : { minVersion: versions[minVersion] }),
  };
}

/** What keeps a file from being read, if anything. */
export function fileProblem(path: string): string | undefined {
  try {
    if (!statSync(path).isFile()) return `${path} is not a file; write the path of a PEM file`;
    accessSync(path, constants.R_OK);
    return undefined;
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return `there is no file ${path}; paths are relative to the config file`;
    if (code === 'EACCES') return `${path} may not be read by this user; change its owner or mode`;
    return `${path} cannot be read (${code})`;
  }
}
