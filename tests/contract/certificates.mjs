// Certificates for tests of TLS: made when they are needed, signed by themselves, so that no key lies in the repository.
import { createPrivateKey, createSign, generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** DER (ITU-T X.690): a tag, the length of what follows, and that. */
function der(tag, ...parts) {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part)));
  if (body.length < 128) return Buffer.concat([Buffer.from([tag, body.length]), body]);
  // In as few bytes as it takes: DER has one way to write a length.
  const length = Buffer.from(body.length.toString(16).padStart(body.length < 256 ? 2 : 4, '0'), 'hex');
  return Buffer.concat([Buffer.from([tag, 0x80 | length.length]), length, body]);
}

const tags = {
  integer: 2,
  bits: 3,
  octets: 4,
  oid: 6,
  utf8: 12,
  utcTime: 23,
  sequence: 48,
  set: 49,
  version: 160,
  extensions: 163,
  dnsName: 130,
};

const oids = {
  commonName: [0x55, 0x04, 0x03],
  subjectAltName: [0x55, 0x1d, 0x11],
  /** ecdsa-with-SHA256, RFC 5758 §3.2. */
  signature: [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
};

const sequence = (...parts) => der(tags.sequence, ...parts);
const oid = (bytes) => der(tags.oid, bytes);

/** A certificate of version 3 (RFC 5280 §4.1) for a name, which is its common name and its only alternative name. */
function certificate(name, { publicKey, privateKey }) {
  const subject = sequence(der(tags.set, sequence(oid(oids.commonName), der(tags.utf8, name))));
  const algorithm = sequence(oid(oids.signature));
  const names = sequence(oid(oids.subjectAltName), der(tags.octets, sequence(der(tags.dnsName, name))));
  const body = sequence(
    der(tags.version, der(tags.integer, [2])),
    der(tags.integer, [1], randomBytes(8)),
    algorithm,
    subject,
    // Until 2049 a time has two digits for the year, RFC 5280 §4.1.2.5.
    sequence(der(tags.utcTime, '200101000000Z'), der(tags.utcTime, '491231235959Z')),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(tags.extensions, sequence(names)),
  );
  const signature = createSign('sha256').update(body).sign(privateKey);
  const whole = sequence(body, algorithm, der(tags.bits, [0], signature));
  const lines = whole.toString('base64').replace(/.{64}/g, '$&\n');
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}

/**
 * Write a new key and a certificate for it into a temporary folder.
 * @param {string} name as in `example.test` or `*.example.test`
 * @param {string} [passphrase] encrypts the key
 */
export function writeCertificate(name, passphrase) {
  const pair = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const folder = mkdtempSync(join(tmpdir(), 'certificate-'));
  const options = passphrase === undefined ? {} : { cipher: 'aes-256-cbc', passphrase };
  const key = pair.privateKey.export({ type: 'pkcs8', format: 'pem', ...options });
  if (passphrase !== undefined) createPrivateKey({ key, passphrase });
  const files = { key_file_name: join(folder, 'key.pem'), cert_file_name: join(folder, 'cert.pem') };
  writeFileSync(files.key_file_name, key, { mode: 0o600 });
  writeFileSync(files.cert_file_name, certificate(name, pair));
  return passphrase === undefined ? files : { ...files, passphrase };
}
