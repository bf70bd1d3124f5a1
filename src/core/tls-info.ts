/**
 * What a TLS connection says of its client.
 * Role: what handlers are given, of requests and of sockets. Up: frontends. Down: http-commands.ts.
 */
import { X509Certificate } from 'node:crypto';

/**
 * What Node's `crypto.X509Certificate`, which it is, has of most use: written out here, so that typings of Node are not needed for it.
 */
export interface PeerCertificate {
  /** Distinguished names, one attribute a line: 'CN=client'. */
  readonly subject: string;
  readonly issuer: string;
  /** 'DNS:client.test, …'; undefined: it has none. */
  readonly subjectAltName: string | undefined;
  /** SHA-256 of `raw`, as 'AB:CD:…'. */
  readonly fingerprint256: string;
  /** Hexadecimal. */
  readonly serialNumber: string;
  /** As 'Nov 29 00:00:00 2026 GMT'. */
  readonly validFrom: string;
  readonly validTo: string;
  /** DER. */
  readonly raw: Uint8Array;
  /** PEM. */
  toString(): string;
}

/** The names are those of Node's `tls.TLSSocket`, as far as it has them as properties. */
export interface TlsInfo {
  /** As `getProtocol()` gives it. */
  readonly protocol: 'TLSv1.2' | 'TLSv1.3';
  /** What the client asked for in the handshake (SNI), in lower case; undefined: nothing, or what is no host name. */
  readonly servername: string | undefined;
  /** Whether it has shown a certificate that `ca` has signed. */
  readonly authorized: boolean;
  /** That certificate, as `getPeerX509Certificate()` gives it. */
  readonly peerCertificate: PeerCertificate | undefined;
}

export function tlsInfo(version: number, serverName: string, certificate: Uint8Array | undefined): TlsInfo {
  let parsed: X509Certificate | undefined;
  return {
    protocol: version === 0x0304 ? 'TLSv1.3' : 'TLSv1.2',
    servername: serverName === '' ? undefined : serverName,
    authorized: certificate !== undefined,
    // Most handlers that ask for the name do not ask for this.
    get peerCertificate() {
      if (certificate !== undefined) parsed ??= new X509Certificate(certificate);
      return parsed;
    },
  };
}
