/** Apps of the uWebSockets.js API: routes, listeners, certificates, child apps, and when the process ends. */
import { afterAll, describe, expect, test } from 'bun:test';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import * as uws from '../../../../src/frontend/uws/index.ts';
import { App, SSLApp, us_listen_socket_close, us_socket_local_port } from '../../../../src/frontend/uws/index.ts';
import type { TemplatedApp, us_listen_socket } from '../../../../src/frontend/uws/types.ts';
import { frame, handshake, opcode } from '../../../support/frames.mjs';
import { Log, Servers, stderrOf, textOf } from '../../../support/uws-server.ts';

const folder = mkdtempSync(join(tmpdir(), 'ringway-uws-'));
afterAll(() => rmSync(folder, { recursive: true }));

const notFound = '<html><body><h1>File Not Found</h1><hr><i>uWebSockets/20 Server</i></body></html>';

async function get(port: number, path = '/', init: RequestInit = {}): Promise<[status: number, text: string]> {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { ...init, keepalive: false });
  return [response.status, await response.text()];
}

describe('the module', () => {
  test('has the names and numbers of the original', () => {
    expect(uws.uws).toMatchObject({ App, SSLApp, us_listen_socket_close, us_socket_local_port });
    const numbers = Object.fromEntries(Object.entries(uws).filter(([, value]) => typeof value === 'number'));
    expect(numbers).toEqual({
      DISABLED: 0,
      SHARED_COMPRESSOR: 1,
      DEDICATED_COMPRESSOR_3KB: 145,
      DEDICATED_COMPRESSOR_4KB: 146,
      DEDICATED_COMPRESSOR_8KB: 163,
      DEDICATED_COMPRESSOR_16KB: 180,
      DEDICATED_COMPRESSOR_32KB: 197,
      DEDICATED_COMPRESSOR_64KB: 214,
      DEDICATED_COMPRESSOR_128KB: 231,
      DEDICATED_COMPRESSOR_256KB: 248,
      DEDICATED_COMPRESSOR: 248,
      SHARED_DECOMPRESSOR: 256,
      DEDICATED_DECOMPRESSOR_512B: 2304,
      DEDICATED_DECOMPRESSOR_1KB: 2560,
      DEDICATED_DECOMPRESSOR_2KB: 2816,
      DEDICATED_DECOMPRESSOR_4KB: 3072,
      DEDICATED_DECOMPRESSOR_8KB: 3328,
      DEDICATED_DECOMPRESSOR_16KB: 3584,
      DEDICATED_DECOMPRESSOR_32KB: 3840,
      DEDICATED_DECOMPRESSOR: 3840,
      LIBUS_LISTEN_DEFAULT: 0,
      LIBUS_LISTEN_EXCLUSIVE_PORT: 1,
    });
  });

  test('makes apps with and without new', () => {
    const Constructor = App as unknown as new () => TemplatedApp;
    expect(typeof new Constructor().get).toBe('function');
    expect(typeof App().get).toBe('function');
  });
});

describe('routes', () => {
  test('are found by method, path and parameters, and each adds to the app', async () => {
    using servers = new Servers();
    const app = App();
    expect(app.get('/a', (response) => void response.end('get'))).toBe(app);
    app
      .post('/a', (response) => void response.end('post'))
      .del('/a', (response) => void response.end('delete'))
      .patch('/a', (response) => void response.end('patch'))
      .put('/a', (response) => void response.end('put'))
      .options('/a', (response) => void response.end('options'))
      .any('/any', (response, request) => void response.end(request.getMethod()))
      .get('/:first/is/:second', (response, request) => {
        response.end(`${request.getParameter(0)} ${request.getParameter('second')} ${request.getParameter(2)}`);
      });
    const port = servers.port(app);
    for (const method of ['GET', 'POST', 'DELETE', 'PATCH', 'PUT', 'OPTIONS']) {
      expect(await get(port, '/a', { method })).toEqual([200, method.toLowerCase()]);
      expect(await get(port, '/any?query', { method })).toEqual([200, method.toLowerCase()]);
    }
    expect(await get(port, '/this/is/that')).toEqual([200, 'this that undefined']);
  });

  test('a request may be passed on to the next route', async () => {
    using servers = new Servers();
    const seen: string[] = [];
    const port = servers.port(
      App()
        .get('/:x', (_, request) => {
          seen.push(request.getParameter('x') ?? '');
          request.setYield(true);
        })
        .any('/*', (response, request) => {
          seen.push(String(request.getParameter(0)));
          response.end('the last');
        }),
    );
    expect(await get(port, '/a')).toEqual([200, 'the last']);
    expect(seen).toEqual(['a', 'undefined']);
  });

  test('what no route takes is answered with the page of the original', async () => {
    using servers = new Servers();
    const wire = await servers.connect(servers.port(App()));
    wire.write('GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
    await wire.untilEnded();
    expect(wire.received.toString()).toStartWith('HTTP/1.1 404 File Not Found\r\n');
    expect(wire.received.toString()).toEndWith(`\r\n\r\n${notFound}`);
  });

  test('that page can be replaced, and without any route the connection ends', async () => {
    using servers = new Servers();
    expect(await get(servers.port(App().any('/*', (response) => void response.end('mine'))))).toEqual([200, 'mine']);
    const wire = await servers.connect(servers.port(App().any('/*', null as never)));
    wire.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await wire.untilEnded();
    expect(wire.received.length).toBe(0);
  });

  test('a declarative response is a handler', async () => {
    using servers = new Servers();
    const declared = new uws.DeclarativeResponse().writeHeader('x-a', 'b').write('Hello ').writeParameterValue('name').end('!');
    const port = servers.port(App().get('/:name', declared));
    expect(await get(port, '/you')).toEqual([200, 'Hello you!']);
  });

  test('a handler that throws or rejects is answered with 500 and reported with its stack; others never notice', async () => {
    using servers = new Servers();
    const port = servers.port(
      App()
        .get('/throw', () => {
          throw new Error('thrown');
        })
        .get('/reject', async (response) => {
          response.onAborted(() => {});
          await Promise.reject(new Error('rejected'));
        })
        .get('/silent', () => {})
        .get('/fine', (response) => void response.end('fine')),
    );
    const said = await stderrOf(async () => {
      expect((await get(port, '/throw'))[0]).toBe(500);
      expect((await get(port, '/reject'))[0]).toBe(500);
      expect((await get(port, '/silent'))[0]).toBe(500);
    });
    for (const part of ['Error: thrown', 'Error: rejected', 'uws/app.test.ts', 'Returning from a request handler without responding']) {
      expect(said).toContain(part);
    }
    expect(await get(port, '/fine')).toEqual([200, 'fine']);
  });

  test('arguments are checked with the words of the original', () => {
    expect(() => App().get('/x', undefined as never)).toThrow('Passed callback is not a valid function.');
    expect(() => App().get(5 as never, () => {})).toThrow('Text and data can only be passed by String, ArrayBuffer or TypedArray.');
  });

  test('a process has 255 WebSocket routes, and says so', () => {
    const program = `
      import { App } from ${JSON.stringify(join(import.meta.dir, '../../../../src/frontend/uws/index.ts'))};
      const app = App();
      for (let route = 0; route < 255; route++) app.ws('/' + route, {});
      try { app.ws('/more', {}); } catch (error) { console.log(error.message); }`;
    expect(run(program)).toBe('a process has at most 255 WebSocket routes in all its apps\n');
  });
});

describe('listening', () => {
  test('takes a port, a host, options, in every form of the original, and calls back at once', async () => {
    using servers = new Servers();
    const app = App().get('/', (response) => void response.end('here')) as TemplatedApp & { listen(...values: unknown[]): TemplatedApp };
    for (const form of [[0], ['127.0.0.1', 0], [0, uws.LIBUS_LISTEN_DEFAULT], ['localhost', 0, uws.LIBUS_LISTEN_EXCLUSIVE_PORT], ['', 0]]) {
      let opened: us_listen_socket | false = false;
      expect(
        app.listen(...form, (socket: us_listen_socket | false) => {
          opened = socket;
        }),
      ).toBe(app);
      expect(opened).not.toBe(false);
      const port = us_socket_local_port(opened);
      expect(port).toBeGreaterThan(0);
      expect(await get(port)).toEqual([200, 'here']);
    }
    servers.port(app);
  });

  test('calls back with false when there is nothing to listen on', () => {
    using servers = new Servers();
    const port = servers.port(App());
    const results: unknown[] = [];
    const app = App() as unknown as { listen(...values: unknown[]): unknown };
    app.listen('127.0.0.1', port, uws.LIBUS_LISTEN_EXCLUSIVE_PORT, (socket: unknown) => results.push(socket));
    app.listen('192.0.2.1', 0, (socket: unknown) => results.push(socket));
    app.listen('no.such.host.invalid', 0, (socket: unknown) => results.push(socket));
    app.listen(70_000, (socket: unknown) => results.push(socket));
    expect(results).toEqual([false, false, false, false]);
    expect(() => app.listen(0)).toThrow('Function requires at least 2 arguments.');
    expect(() => app.listen({}, 0, () => {})).toThrow('Text and data can only be passed by String, ArrayBuffer or TypedArray.');
  });

  test('an error in the callback comes out of listen()', () => {
    using servers = new Servers();
    const app = App();
    servers.port(app);
    const failing = () =>
      app.listen('127.0.0.1', 0, () => {
        throw new Error('in the callback');
      });
    expect(failing).toThrow('in the callback');
  });

  test('two apps may share a port', () => {
    using servers = new Servers();
    const port = servers.port(App());
    let isShared = false;
    const other = App().listen('127.0.0.1', port, (socket) => {
      isShared = socket !== false;
    });
    other.close();
    expect(isShared).toBe(true);
  });

  test('works on a Unix socket', async () => {
    using servers = new Servers();
    const path = join(folder, 'app.sock');
    const app = App().get('/', (response) => void response.end(`[${textOf(response.getRemoteAddressAsText())}]`));
    servers.port(app);
    const results: unknown[] = [];
    expect(app.listen_unix((socket) => void results.push(us_socket_local_port(socket)), path)).toBe(app);
    app.listen_unix((socket) => void results.push(socket), join(folder, 'no', 'such', 'folder'));
    expect(results).toEqual([-1, false]);
    expect(await (await fetch('http://localhost/', { unix: path })).text()).toBe('[]');
  });

  test('ends with us_listen_socket_close, and connections live on', async () => {
    using servers = new Servers();
    const app = App().ws('/*', { message: (socket, message) => void socket.send(message) });
    const listener = servers.listen(app);
    const port = us_socket_local_port(listener);
    const wire = await servers.open(port);
    us_listen_socket_close(listener);
    us_listen_socket_close(listener);
    expect(us_socket_local_port(listener)).toBe(-1);
    await expect(servers.connect(port)).rejects.toThrow();
    wire.write(frame(opcode.text, 'still here'));
    expect((await wire.frame())?.payload.toString()).toBe('still here');
    const again = servers.port(app);
    expect((await servers.open(again)).ended).toBeUndefined();
  });

  test('a port is free again as soon as its socket is closed', () => {
    using servers = new Servers();
    const app = App();
    const results: boolean[] = [];
    const port = servers.port(app);
    for (let round = 0; round < 3; round++) {
      const other = App();
      other.listen('127.0.0.1', 0, uws.LIBUS_LISTEN_EXCLUSIVE_PORT, (first) => {
        const own = us_socket_local_port(first as us_listen_socket);
        us_listen_socket_close(first as us_listen_socket);
        other.listen('127.0.0.1', own, uws.LIBUS_LISTEN_EXCLUSIVE_PORT, (again) => void results.push(again !== false && own !== port));
      });
      other.close();
    }
    expect(results).toEqual([true, true, true]);
  });

  test('an app may listen on several ports, and close() ends them all with their connections', async () => {
    using servers = new Servers();
    const aborted = new Log();
    const app = App().get('/wait', (response) => void response.onAborted(() => aborted.push('aborted')));
    const ports = [servers.port(app), servers.port(app)];
    const wires = await Promise.all(ports.map((port) => servers.connect(port)));
    for (const wire of wires) wire.write('GET /wait HTTP/1.1\r\nHost: x\r\n\r\n');
    const seen = await stderrOf(async () => {
      for (const wire of await Promise.all(ports.map((port) => servers.connect(port)))) {
        wire.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
        await wire.head();
      }
      app.close();
      expect(aborted.entries).toEqual(['aborted', 'aborted']);
      for (const wire of wires) await wire.untilEnded();
    });
    expect(seen).toBe('');
    for (const port of ports) await expect(servers.connect(port)).rejects.toThrow();
  });

  test('a process takes up and gives back more listeners than it can have at once', async () => {
    const program = `
      import { App, us_listen_socket_close } from ${JSON.stringify(join(import.meta.dir, '../../../../src/frontend/uws/index.ts'))};
      const turn = () => new Promise((resolve) => setTimeout(resolve, 1));
      let failures = 0;
      for (let round = 0; round < 300; round++) {
        App().listen('127.0.0.1', 0, (socket) => socket === false ? failures++ : us_listen_socket_close(socket));
        if (round % 50 === 0) await turn();
      }
      console.log(failures);`;
    expect(run(program)).toBe('0\n');
  });
});

describe('filters', () => {
  test('see each connection come and go, but not a WebSocket go', async () => {
    using servers = new Servers();
    const log = new Log();
    const app = App().ws('/*', {});
    expect(app.filter((response, count) => log.push(`${count} ${textOf(response.getRemoteAddressAsText()).slice(-9)}`))).toBe(app);
    const port = servers.port(app);
    const plain = await servers.connect(port);
    expect(await log.count(1)).toEqual(['1 127.0.0.1']);
    const socket = await servers.open(port);
    expect(await log.count(2)).toEqual(['1 127.0.0.1', '1 127.0.0.1']);
    socket.destroy();
    await socket.untilEnded();
    plain.destroy();
    expect((await log.count(3)).map((entry) => entry.split(' ')[0])).toEqual(['1', '1', '-1']);
  });

  test('may be added to an app that listens already, and may throw', async () => {
    using servers = new Servers();
    const log = new Log();
    const app = App();
    const port = servers.port(app);
    app.filter(() => {
      throw new Error('in the filter');
    });
    app.filter((_, count) => log.push(String(count)));
    const said = await stderrOf(async () => {
      const wire = await servers.connect(port);
      await log.count(1);
      wire.destroy();
      await log.count(2);
    });
    expect(log.entries).toEqual(['1', '-1']);
    expect(said).toContain('a filter failed: Error: in the filter');
  });
});

describe('child apps', () => {
  test('get the connections of their parent in turn', async () => {
    using servers = new Servers();
    const child = (name: string) => App().any('/*', (response) => void response.end(name));
    const [one, two] = [child('one'), child('two')];
    const parent = App().any('/*', (response) => void response.end('parent'));
    parent.addChildAppDescriptor(one.getDescriptor());
    const port = servers.port(parent);
    parent.addChildAppDescriptor(two.getDescriptor());
    const asked: string[] = [];
    for (let turn = 0; turn < 4; turn++) asked.push((await get(port))[1]);
    expect(asked).toEqual(['one', 'two', 'one', 'two']);
    parent.removeChildAppDescriptor(one.getDescriptor());
    expect((await get(port))[1]).toBe('two');
    parent.removeChildAppDescriptor(two.getDescriptor());
    expect((await get(port))[1]).toBe('parent');
  });

  test('of unknown descriptors are refused', () => {
    expect(() => App().addChildAppDescriptor(999_999 as never)).toThrow('no app of this thread has this descriptor');
    expect(() => App().removeChildAppDescriptor('1' as never)).toThrow('no app of this thread has this descriptor');
  });
});

/** A certificate for these names, and its key. */
function certificate(name: string): { key_file_name: string; cert_file_name: string } {
  const files = { key_file_name: join(folder, `${name}.key`), cert_file_name: join(folder, `${name}.pem`) };
  const subject = ['-subj', `/CN=${name}`, '-addext', `subjectAltName=DNS:${name}`];
  const output = ['-keyout', files.key_file_name, '-out', files.cert_file_name];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  execFileSync('openssl', ['req', '-x509', ...kind, ...subject, ...output], { stdio: 'pipe' });
  return files;
}

/** The certificate's name, and the answer to a GET of /. */
async function getTls(port: number, servername: string): Promise<[name: string, answer: string]> {
  const { promise, resolve, reject } = Promise.withResolvers<[string, string]>();
  const socket = connectTls({ port, host: '127.0.0.1', servername, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] });
  let received = '';
  socket.on('secureConnect', () => socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'));
  socket.on('data', (chunk: Buffer) => {
    received += chunk;
  });
  const name = () => String(socket.getPeerCertificate().subject?.CN);
  let shown = '';
  socket.on('secureConnect', () => {
    shown = name();
  });
  socket.on('error', reject);
  socket.on('close', () => resolve([shown, received.slice(received.indexOf('\r\n\r\n') + 4)]));
  return promise.finally(() => socket.destroy());
}

describe('TLS', () => {
  test('an SSLApp whose certificates cannot be used is not made, and says why on stderr', async () => {
    const said = await stderrOf(() => {
      expect(() => SSLApp({ key_file_name: join(folder, 'nope'), cert_file_name: join(folder, 'nope') })).toThrow(
        'App construction failed',
      );
    });
    expect(said).toContain(join(folder, 'nope'));
  });

  test('an SSLApp without certificates can be made, but not listen', async () => {
    const results: unknown[] = [];
    const said = await stderrOf(() => SSLApp({}).listen('127.0.0.1', 0, (socket) => void results.push(socket)));
    expect(results).toEqual([false]);
    expect(said).toContain('certificate');
  });

  test('serves requests and sockets', async () => {
    using servers = new Servers();
    const app = SSLApp(certificate('one.test')).get('/', (response) => void response.end('secret'));
    expect(await getTls(servers.port(app), 'one.test')).toEqual(['one.test', 'secret']);
  });

  test('server names have certificates and routes of their own, until they are removed', async () => {
    using servers = new Servers();
    const app = SSLApp(certificate('main.test')).get('/', (response) => void response.end('main'));
    app.addServerName('before.test', certificate('before.test'));
    const port = servers.port(app);
    expect(app.addServerName('*.after.test', certificate('after.test'))).toBe(app);
    app.domain('before.test').get('/', (response) => void response.end('before'));
    app.domain('*.after.test').get('/', (response) => void response.end('after'));
    app.domain('unknown.test').get('/', (response) => void response.end('main again'));
    expect(await getTls(port, 'before.test')).toEqual(['before.test', 'before']);
    expect(await getTls(port, 'x.after.test')).toEqual(['after.test', 'after']);
    expect(await getTls(port, 'other.test')).toEqual(['main.test', 'main again']);
    expect(app.removeServerName('before.test')).toBe(app);
    expect(await getTls(port, 'before.test')).toEqual(['main.test', 'main again']);
  });

  test('a name that is missing can be added while its handshake waits', async () => {
    using servers = new Servers();
    const asked: string[] = [];
    const app = SSLApp(certificate('known.test'));
    app.missingServerName((name) => {
      asked.push(name);
      app.addServerName(name, certificate(name));
      app.domain(name).get('/', (response) => void response.end(`for ${name}`));
    });
    const port = servers.port(app);
    expect(await getTls(port, 'late.test')).toEqual(['late.test', 'for late.test']);
    expect(await getTls(port, 'late.test')).toEqual(['late.test', 'for late.test']);
    expect(asked).toEqual(['late.test']);
  });

  test('a server name whose certificate cannot be used is left out, and said on stderr', async () => {
    using servers = new Servers();
    const app = SSLApp(certificate('main.test')).get('/', (response) => void response.end('main'));
    const port = servers.port(app);
    const said = await stderrOf(() => app.addServerName('bad.test', { key_file_name: 'nope', cert_file_name: 'nope' }));
    expect(said).toContain("addServerName('bad.test')");
    expect(await getTls(port, 'bad.test')).toEqual(['main.test', 'main']);
  });

  test('server names mean nothing to a plain app', async () => {
    using servers = new Servers();
    const app = App()
      .addServerName('x.test', {})
      .missingServerName(() => {});
    app.domain('x.test').get('/', (response) => void response.end('plain'));
    app.removeServerName('x.test');
    expect(await get(servers.port(app))).toEqual([200, 'plain']);
  });
});

/** What a program of its own writes until it ends by itself. */
function run(program: string): string {
  const file = join(folder, `${Bun.hash(program)}.ts`);
  if (!existsSync(file)) writeFileSync(file, program);
  return execFileSync(process.execPath, [file], { timeout: 30_000 }).toString();
}

describe('the process', () => {
  const start = `
    import { App, us_listen_socket_close, us_socket_local_port } from ${JSON.stringify(join(import.meta.dir, '../../../../src/frontend/uws/index.ts'))};`;

  test('lives while an app listens, and ends once all listeners and connections are closed', () => {
    const program = `${start}
      import { connect } from 'node:net';
      const app = App().get('/', (response) => response.end('answered'));
      app.listen('127.0.0.1', 0, (socket) => {
        const client = connect(us_socket_local_port(socket), '127.0.0.1', () => client.write('GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'));
        client.once('data', (data) => {
          console.log(data.toString().includes('answered'));
          us_listen_socket_close(socket);
          client.end();
        });
      });`;
    expect(run(program)).toBe('true\n');
  });

  test('ends with close(), and an app may listen again', () => {
    const program = `${start}
      const app = App().get('/', (response) => response.end('answered'));
      const ask = () => new Promise((resolve) => app.listen('127.0.0.1', 0, async (socket) => {
        resolve(await (await fetch('http://127.0.0.1:' + us_socket_local_port(socket))).text());
      }));
      console.log(await ask());
      app.close();
      await new Promise((resolve) => setTimeout(resolve, 20));
      console.log(await ask());
      app.close();`;
    expect(run(program)).toBe('answered\nanswered\n');
  });

  test('ends at once when no app listens', () => {
    expect(run(`${start} App().get('/', () => {}); console.log('made');`)).toBe('made\n');
  });

  test('answers a handshake and its messages in a program without other work', () => {
    const program = `${start}
      const app = App().ws('/*', { message: (socket, message) => socket.send(message), close: () => app.close() });
      app.listen('127.0.0.1', 0, (socket) => {
        const client = new WebSocket('ws://127.0.0.1:' + us_socket_local_port(socket));
        client.onopen = () => client.send('echo');
        client.onmessage = ({ data }) => { console.log(data); client.close(); };
      });`;
    expect(run(program)).toBe('echo\n');
  });
});

test('a handshake without a route for its path gets the 404 page', async () => {
  using servers = new Servers();
  const wire = await servers.connect(servers.port(App().ws('/only', {})));
  wire.write(handshake('/other'));
  expect(await wire.head()).toStartWith('HTTP/1.1 404 File Not Found\r\n');
});
