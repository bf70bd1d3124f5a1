/** The admin listener as an HTTP server: bytes in, bytes out. */
import { afterEach, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import type { AdminSettings } from '../../../src/config/resolve.ts';
import { createLog } from '../../../src/log.ts';
import { type AdminServer, type AdminView, serveAdmin } from '../../../src/supervisor/admin.ts';
import { eventually } from '../../support/eventually.ts';

const token = 'of-the-tests-and-of-nothing-else';
let published = 0;
let health: () => unknown = () => ({ status: 'ok', version: '1' });
const view = {
  metrics: async () => new Registry(),
  notReady: () => undefined,
  health: () => health(),
  perform: async () => {
    published += 1;
    return [{ answer: {} }];
  },
  reload: async () => {
    await Bun.sleep(50);
    return { kind: 'reloaded', generation: 2 };
  },
} as unknown as AdminView;

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function serve(settings: Partial<AdminSettings> & { host?: string; path?: string } = {}): Promise<AdminServer> {
  const lines: string[] = [];
  const address = settings.path === undefined ? { kind: 'tcp', host: '127.0.0.1', port: 0 } : { kind: 'unix' };
  const server = await serveAdmin(
    view,
    { ...address, token, ...settings } as AdminSettings,
    createLog({ level: 'info' }, { write: (line) => void lines.push(line) }),
  );
  cleanUps.push(() => server.stop());
  return server;
}

const portOf = (server: AdminServer) => Number(/:(\d+)$/.exec(server.label)?.[1]);

/** Everything that is answered until the server closes the connection, or `until` holds. */
function talk(server: AdminServer, bytes: string, until: (text: string) => boolean = () => false): Promise<string> {
  const socket = server.label.startsWith('unix:') ? connect(server.label.slice(5)) : connect(portOf(server), '127.0.0.1');
  let text = '';
  return new Promise((resolve) => {
    socket.on('connect', () => socket.write(bytes));
    socket.on('data', (data) => {
      text += data.toString('latin1');
      if (until(text)) socket.destroy();
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
  });
}

const statusOf = (answer: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]);
const count = (text: string, what: string) => text.split(what).length - 1;

describe('the admin listener', () => {
  test('loads what its answers are made of when it is told to, before anybody has asked', async () => {
    let made = 0;
    const counting = {
      ...view,
      metrics: () => {
        made += 1;
        return view.metrics();
      },
    };
    const server = await serveAdmin(counting, { kind: 'tcp', host: '127.0.0.1', port: 0, token }, createLog({ level: 'fatal' }));
    cleanUps.push(() => server.stop());
    expect(made).toBe(0);
    await server.prepare();
    expect(made).toBe(1);
    expect(await talk(server, 'GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')).toStartWith('HTTP/1.1 200 OK');
  });

  test('answers probes of HTTP/1.0 without Host, an empty Host, and HEAD, which has the length of GET and no content', async () => {
    const server = await serve();
    const ready = '{"status":"ready"}';
    for (const request of ['GET /readyz HTTP/1.0\r\n', 'GET /readyz HTTP/1.1\r\nHost:\r\nConnection: close\r\n']) {
      const answer = await talk(server, `${request}\r\n`);
      expect([request, statusOf(answer), answer.split('\r\n\r\n')[1]]).toEqual([request, 200, ready]);
    }
    const head = await talk(server, 'HEAD /readyz HTTP/1.0\r\n\r\n');
    expect([statusOf(head), head.split('\r\n\r\n')[1]]).toEqual([200, '']);
    expect(head.toLowerCase()).toContain(`content-length: ${ready.length}\r\n`);
  });

  test('answers requests that come before the one in front is answered, in their order', async () => {
    const server = await serve();
    const requests = [
      `POST /reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}\r\nContent-Length: 0\r\n\r\n`,
      'GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n',
      'GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n',
    ];
    const answers = await talk(server, requests.join(''));
    expect([...answers.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual(['200', '200', '404']);
    expect(answers.indexOf('"generation":2')).toBeLessThan(answers.indexOf('"status":"ready"'));
  });

  test('at a loopback address answers no other name: a page cannot read it through a name of its own', async () => {
    const server = await serve();
    const ask = async (host: string) => statusOf(await talk(server, `GET /healthz HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`));
    for (const host of ['localhost', 'LocalHost:9100', 'gateway.localhost', 'localhost.', '127.0.0.1:1', '10.0.0.1', '[::1]', '[::1]:80'])
      expect([host, await ask(host)]).toEqual([host, 200]);
    for (const host of ['evil.example', 'evil.example:9100', 'localhost.evil.example', '127.0.0.1.evil.example', 'notlocalhost'])
      expect([host, await ask(host)]).toEqual([host, 421]);
    const absolute = await talk(server, 'GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n');
    expect(statusOf(absolute)).toBe(421);
    const before = published;
    const post = `POST /publish/a HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer ${token}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx`;
    expect([statusOf(await talk(server, post)), published]).toEqual([421, before]);
  });

  test('at other addresses, and at a Unix socket, is called what others call it', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ringway-admin-http-'));
    cleanUps.push(() => rmSync(folder, { recursive: true, force: true }));
    for (const server of [await serve({ host: '0.0.0.0' }), await serve({ path: join(folder, 'a') } as never)])
      expect(statusOf(await talk(server, 'GET /healthz HTTP/1.1\r\nHost: gateway.internal\r\nConnection: close\r\n\r\n'))).toBe(200);
  });

  test('lets no page of another origin change anything: none is told that it may', async () => {
    const server = await serve();
    const from = 'Host: localhost\r\nOrigin: https://evil.example\r\nConnection: close\r\n';
    const preflight = await talk(
      server,
      `OPTIONS /publish/a HTTP/1.1\r\n${from}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n\r\n`,
    );
    expect(statusOf(preflight)).toBe(405);
    for (const answer of [preflight, await talk(server, `GET /healthz HTTP/1.1\r\n${from}\r\n`)])
      expect(answer.toLowerCase()).not.toContain('access-control-allow');
    const before = published;
    expect(statusOf(await talk(server, `POST /publish/a HTTP/1.1\r\n${from}Content-Length: 1\r\n\r\nx`))).toBe(401);
    expect(published).toBe(before);
  });

  test('refuses what two parsers could read differently, and what is too large', async () => {
    const server = await serve();
    const cases: [number, string][] = [
      [400, 'POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
      [400, 'GET /readyz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n'],
      [400, 'GET /readyz HTTP/1.1\r\n\r\n'],
      [431, `GET /readyz HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(70_000)}\r\n\r\n`],
      [505, 'GET /readyz HTTP/2.0\r\nHost: localhost\r\n\r\n'],
    ];
    for (const [status, request] of cases)
      expect([request.slice(0, 60), statusOf(await talk(server, request))]).toEqual([request.slice(0, 60), status]);
    expect(statusOf(await talk(server, 'GET /readyz HTTP/1.0\r\n\r\n'))).toBe(200);
  });

  test('answers 500 and tells the log when it fails, and serves on', async () => {
    const server = await serve();
    health = () => {
      throw new Error('no health');
    };
    const answer = await talk(server, 'GET /healthz HTTP/1.0\r\n\r\n');
    health = () => ({ status: 'ok', version: '1' });
    expect([statusOf(answer), answer]).toEqual([500, expect.stringContaining('its log says why')]);
    expect(statusOf(await talk(server, 'GET /healthz HTTP/1.0\r\n\r\n'))).toBe(200);
  });

  test('when it stops cuts what is connected, and its port is free at once', async () => {
    const server = await serve();
    const port = portOf(server);
    let answered = '';
    const cut = talk(server, 'GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n', (text) => {
      answered = text;
      return false;
    });
    const busy = talk(server, `POST /reload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}\r\nContent-Length: 0\r\n\r\n`);
    await eventually('the first is answered', () => answered.includes('200'));
    server.stop();
    const next = await serve({ port } as never);
    expect(portOf(next)).toBe(port);
    expect(count(await cut, 'HTTP/1.1 200')).toBe(1);
    await busy;
    expect(statusOf(await talk(next, 'GET /readyz HTTP/1.0\r\n\r\n'))).toBe(200);
    next.stop();
  });
});
