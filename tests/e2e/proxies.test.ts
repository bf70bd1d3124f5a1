/** Pages behind real proxies, which listen on other ports than the gateway: whose WebSockets `origins: 'same-host'` lets in. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { type Authority, createAuthority } from '../support/certificates.ts';
import { handshake } from '../support/frames.mjs';
import { type Gateway, startGateway } from '../support/gateway.ts';
import { type Balancer, hasBalancer, startBalancer } from '../support/haproxy.ts';
import { hasNginx, type Nginx, startNginx } from '../support/nginx.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = (trustedProxies: string) => `
import { defineGateway } from 'ringway';
export default defineGateway({
  $OPTIONS,
  ${trustedProxies}
  fetch: (request) => new Response(request.url),
  websocket: { '/': { origins: 'same-host', message() {} } },
});
`;

/** Not among the trusted addresses: proxies that come from the one are believed nothing, and clients come from the other. */
const stranger = '127.0.0.9';
const client = '127.0.0.5';
/** The lines that the docs tell to write, outside of which nothing is needed here. */
const documented = [
  ...readFileSync(join(import.meta.dir, '../../docs/proxies.md'), 'utf8').matchAll(/^ {8}(proxy_(?:http_version|set_header) .*)$/gm),
]
  .map(([, line = '']) => line.replace('$ringway_connection', 'upgrade'))
  .join('\n');

let authority: Authority;
let folder: string;
let tlsFiles: { cert: string; key: string };
let pem: string;
let sockets: { plain: string; proxied: string };
/** It believes X-Forwarded-*, and the other one Forwarded. */
let gateway: Gateway;
let forwarded: Gateway;

beforeAll(async () => {
  authority = createAuthority();
  const certificate = authority.issue('localhost', 'DNS:localhost');
  tlsFiles = authority.filesOf(certificate);
  folder = mkdtempSync(join(tmpdir(), 'ringway-proxies-'));
  // nginx serves as another user than the one that starts it, when that is root.
  chmodSync(folder, 0o711);
  pem = join(folder, 'both.pem');
  writeFileSync(pem, certificate.cert + certificate.key, { mode: 0o600 });
  sockets = { plain: join(folder, 'plain.sock'), proxied: join(folder, 'proxied.sock') };
  gateway = await startGateway({
    config: config(`trustedProxies: { addresses: ['127.0.0.1'] },`),
    listen: `[{ port: 0, host: '127.0.0.1' }, { unix: '${sockets.plain}', mode: 0o666 }, { unix: '${sockets.proxied}', proxyProtocol: true }]`,
  });
  forwarded = await startGateway({ config: config(`trustedProxies: { addresses: ['127.0.0.1'], header: 'forwarded' },`) });
});
afterAll(async () => {
  await Promise.all([gateway?.stop(), forwarded?.stop()]);
  authority?.dispose();
  if (folder) rmSync(folder, { recursive: true, force: true });
});

type Scheme = 'http' | 'https';

/** Send a head, take the head of the answer; of a 200 all until the connection is closed. */
function exchange(port: number, scheme: Scheme, head: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    let text = '';
    const to = { port, host: '127.0.0.1', localAddress: client };
    const finish = () => resolve({ status: Number(text.split(' ')[1]), text });
    const begin = () => socket.write(head);
    const socket =
      scheme === 'https' ? connectTls({ ...to, servername: 'localhost', ca: readFileSync(authority.file) }, begin) : connect(to, begin);
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      if (text.includes('\r\n\r\n') && !text.startsWith('HTTP/1.1 200')) socket.destroy();
    });
    socket.on('error', reject);
    socket.on('close', finish);
  });
}

/** The status of a handshake as a browser sends it to `scheme://host`, from a page of `origin`. */
async function statusFor(port: number, scheme: Scheme, host: string, origin: string, more: Record<string, string> = {}): Promise<number> {
  const head = handshake('/', { Host: host, Origin: origin, ...more });
  return (await exchange(port, scheme, head)).status;
}

/** Who is let in at a proxy: a page of it, and nobody else. */
async function expectOwnPagesOnly(port: number, scheme: Scheme): Promise<void> {
  const host = `localhost:${port}`;
  expect(await statusFor(port, scheme, host, `${scheme}://${host}`)).toBe(101);
  const others = [
    'https://evil.example',
    `${scheme}://localhost`,
    `${scheme}://localhost:${gateway.port}`,
    `${scheme}://localhost.example:${port}`,
    'null',
  ];
  for (const origin of others) {
    expect([origin, await statusFor(port, scheme, host, origin)]).toEqual([origin, 403]);
    // What the proxy has written stands, not what came to it.
    const told = origin.replace(/^https?:\/\//, '');
    const forged = { 'X-Forwarded-Host': told, 'X-Forwarded-Port': '443', Forwarded: `host="${told}"` };
    expect([origin, await statusFor(port, scheme, host, origin, forged)]).toEqual([origin, 403]);
  }
}

describe.skipIf(!hasNginx())('behind nginx', () => {
  let nginx: Nginx;
  const passes = ['proxy_http_version 1.1;', 'proxy_set_header Upgrade $http_upgrade;', 'proxy_set_header Connection upgrade;'];
  const location = (upstream: string, ...lines: string[]) => ['location / {', `proxy_pass ${upstream};`, ...lines, '}'];
  beforeAll(async () => {
    const tls = [`ssl_certificate ${tlsFiles.cert};`, `ssl_certificate_key ${tlsFiles.key};`];
    const recipe = documented.split('\n');
    const host = (value: string) => `proxy_set_header Host ${value};`;
    const told = ['proxy_set_header X-Forwarded-Host $http_host;', 'proxy_set_header X-Forwarded-Port "";'];
    nginx = await startNginx({
      recipe: { lines: location(gateway.url, ...recipe) },
      recipeTls: { listen: 'ssl', lines: [...tls, ...location(gateway.url, ...recipe)] },
      recipeUnix: { listen: 'ssl', lines: [...tls, ...location(`http://unix:${sockets.plain}:`, ...recipe)] },
      noPort: { listen: 'ssl', lines: [...tls, ...location(gateway.url, ...passes, host('$host'))] },
      toldPort: {
        listen: 'ssl',
        lines: [
          ...tls,
          ...location(
            gateway.url,
            ...passes,
            host('$host'),
            'proxy_set_header X-Forwarded-Host "";',
            'proxy_set_header X-Forwarded-Port $server_port;',
          ),
        ],
      },
      toldHost: { listen: 'ssl', lines: [...tls, ...location(gateway.url, ...passes, ...told)] },
      forwarded: {
        listen: 'ssl',
        lines: [
          ...tls,
          ...location(forwarded.url, ...passes, `proxy_set_header Forwarded 'for=$remote_addr;host="$http_host";proto=$scheme';`),
        ],
      },
      stranger: { listen: 'ssl', lines: [...tls, ...location(gateway.url, ...passes, `proxy_bind ${stranger};`)] },
      strangerTells: { listen: 'ssl', lines: [...tls, ...location(gateway.url, ...passes, ...told, `proxy_bind ${stranger};`)] },
      strangerKeeps: { listen: 'ssl', lines: [...tls, ...location(gateway.url, ...passes, host('$http_host'), `proxy_bind ${stranger};`)] },
    });
  });
  afterAll(() => nginx?.stop());
  const port = (name: string) => nginx.ports[name] as number;

  test('with the lines of the docs its own pages connect, on any port, with TLS and over a Unix socket', async () => {
    expect(documented).toContain('proxy_set_header Host $http_host;');
    await expectOwnPagesOnly(port('recipe'), 'http');
    await expectOwnPagesOnly(port('recipeTls'), 'https');
    await expectOwnPagesOnly(port('recipeUnix'), 'https');
  });

  test('default ports are left out of Host and Origin, and may be written', async () => {
    for (const name of ['recipeTls', 'toldHost', 'forwarded', 'strangerKeeps']) {
      for (const host of ['a.example', 'a.example:443'])
        expect([name, host, await statusFor(port(name), 'https', host, 'https://a.example')]).toEqual([name, host, 101]);
      expect([name, await statusFor(port(name), 'https', 'a.example', 'https://a.example:8443')]).toEqual([name, 403]);
    }
  });

  test('$host loses the port: pages of another port than the default are refused, until it is told', async () => {
    const at = (name: string) => `localhost:${port(name)}`;
    expect(await statusFor(port('noPort'), 'https', at('noPort'), `https://${at('noPort')}`)).toBe(403);
    expect(await statusFor(port('noPort'), 'https', 'localhost', 'https://localhost')).toBe(101);
    await expectOwnPagesOnly(port('toldPort'), 'https');
  });

  test('with another Host its own pages connect where it tells the one that was asked for', async () => {
    await expectOwnPagesOnly(port('toldHost'), 'https');
    await expectOwnPagesOnly(port('forwarded'), 'https');
  });

  test('a proxy that is not trusted is believed nothing, but Host is Host', async () => {
    for (const name of ['stranger', 'strangerTells']) {
      const host = `localhost:${port(name)}`;
      const forged = { 'X-Forwarded-Host': host, Forwarded: `host="${host}"` };
      expect([name, await statusFor(port(name), 'https', host, `https://${host}`, forged)]).toEqual([name, 403]);
    }
    await expectOwnPagesOnly(port('strangerKeeps'), 'https');
  });

  test('request.url is as Host and the connection to the gateway say', async () => {
    const url = async (name: string) => {
      const head = `GET /x HTTP/1.1\r\nHost: localhost:${port(name)}\r\nConnection: close\r\n\r\n`;
      return (await exchange(port(name), 'https', head)).text.split('\r\n').find((line) => line.includes('://'));
    };
    expect(await url('recipeTls')).toBe(`http://localhost:${port('recipeTls')}/x`);
    expect(await url('toldHost')).toBe(`${gateway.url}/x`);
  });
});

describe.skipIf(!hasBalancer())('behind haproxy', () => {
  let balancer: Balancer;
  beforeAll(async () => {
    const server = `127.0.0.1:${gateway.port}`;
    const bind = `ssl crt ${pem}`;
    const tell = 'http-request set-header X-Forwarded-Host %[req.hdr(Host)]';
    const rewrite = 'http-request set-header Host inside:8080';
    const clear = 'http-request del-header X-Forwarded- -m beg';
    balancer = await startBalancer({
      plain: { mode: 'http', options: ['option forwardfor', clear], server },
      tls: { mode: 'http', bind, options: ['option forwardfor', clear], server },
      toldHost: { mode: 'http', bind, options: [clear, tell, rewrite], server },
      forwarded: {
        mode: 'http',
        bind,
        options: ['http-request set-header Forwarded for=%[src];host=\\"%[req.hdr(Host)]\\";proto=https', rewrite],
        server: `127.0.0.1:${forwarded.port}`,
      },
      tcp: { mode: 'tcp', bind, server: `unix@${sockets.proxied} send-proxy-v2` },
      strangerTells: { mode: 'http', bind, options: [tell, rewrite], server: `${server} source ${stranger}` },
    });
  });
  afterAll(() => balancer?.stop());
  const port = (name: string) => balancer.ports[name] as number;

  test('which keeps Host, its own pages connect, on any port, with TLS, and with the PROXY protocol', async () => {
    await expectOwnPagesOnly(port('plain'), 'http');
    await expectOwnPagesOnly(port('tls'), 'https');
    await expectOwnPagesOnly(port('tcp'), 'https');
    expect(await statusFor(port('tls'), 'https', 'a.example', 'https://a.example')).toBe(101);
  });

  test('with another Host its own pages connect where it tells the one that was asked for', async () => {
    await expectOwnPagesOnly(port('toldHost'), 'https');
    await expectOwnPagesOnly(port('forwarded'), 'https');
  });

  test('one that is not trusted is believed nothing', async () => {
    const host = `localhost:${port('strangerTells')}`;
    expect(await statusFor(port('strangerTells'), 'https', host, `https://${host}`)).toBe(403);
  });
});
