#!/bin/sh
# One would expect: a set of keys that createRemoteJWKSet has fetched stays of use while its issuer cannot be reached; it is a cache, and the keys have
# not changed. So tokens that are signed with a known key go on being believed through an outage.
# What happens: once the set is older than cacheMaxAge (10 minutes by default) every token is refused with the error of fetch, known key or not, until
# the issuer answers again. And that error is no JOSEError, by which programs tell a bad token from a fault of their own.
# With cacheMaxAge: Infinity known keys stay, and a new set is fetched only for a key that is not among them.
# Seen with jose 6.2.18 on Node 20.20.2, Linux x86-64, 2026-11-29.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{ "private": true, "type": "module" }' > package.json
npm install --no-audit --no-fund --silent jose@6.2.18

cat > outage.js <<'JS'
import { createServer } from 'node:http';
import { createRemoteJWKSet, errors, exportJWK, generateKeyPair, jwtVerify, SignJWT } from 'jose';
const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
const keys = [{ ...(await exportJWK(publicKey)), kid: 'a', alg: 'ES256' }];
const issuer = createServer((_, answer) => answer.setHeader('content-type', 'application/json').end(JSON.stringify({ keys })));
await new Promise((resolve) => issuer.listen(0, '127.0.0.1', resolve));
const url = new URL(`http://127.0.0.1:${issuer.address().port}/`);
const sets = { 'cacheMaxAge 200 ms': createRemoteJWKSet(url, { cacheMaxAge: 200 }), 'cacheMaxAge Infinity': createRemoteJWKSet(url, { cacheMaxAge: Infinity }) };
const token = await new SignJWT({ sub: 'ann' }).setProtectedHeader({ alg: 'ES256', kid: 'a' }).setExpirationTime('1h').sign(privateKey);
const look = async (when) => {
  for (const [name, set] of Object.entries(sets)) {
    const verdict = await jwtVerify(token, set).then(() => 'believed', (error) => `refused, ${error instanceof errors.JOSEError ? 'a' : 'no'} JOSEError`);
    console.log(`${name}, ${when}: ${verdict}`);
  }
};
await look('issuer there');
issuer.closeAllConnections();
await new Promise((resolve) => issuer.close(resolve));
await look('issuer gone');
await new Promise((resolve) => setTimeout(resolve, 300));
await look('issuer gone, set old');
JS

echo "Node $(node --version), jose $(node -p 'require("./node_modules/jose/package.json").version')"
node outage.js | tee out
grep -qx 'cacheMaxAge 200 ms, issuer gone: believed' out
grep -qx 'cacheMaxAge 200 ms, issuer gone, set old: refused, no JOSEError' out
grep -qx 'cacheMaxAge Infinity, issuer gone, set old: believed' out
