/** WebSocket of the uWebSockets.js API, from the wire to the program and back. */
import { describe, expect, test } from 'bun:test';
import { App, DISABLED, SHARED_COMPRESSOR } from '../../../../src/frontend/uws/index.ts';
import type { HttpResponse, WebSocket, WebSocketBehavior } from '../../../../src/frontend/uws/types.ts';
import { closePayload, frame, handshake, opcode } from '../../../support/frames.mjs';
import { bytesOf, Log, Servers, stderrOf, textOf } from '../../../support/uws-server.ts';
import type { Wire } from '../../../support/wire.ts';

type Data = Record<string, unknown>;

const dead = 'Invalid access of closed uWS.WebSocket/SSLWebSocket.';

/** A server with one route, and the objects of its sockets in the order in which they open. */
function serve(servers: Servers, behavior: WebSocketBehavior<Data> = {}) {
  const sockets: WebSocket<Data>[] = [];
  const closes = new Log<[code: number, reason: string]>();
  const app = App().ws<Data>('/*', {
    close: (_, code, reason) => closes.push([code, textOf(reason)]),
    ...behavior,
    open(socket) {
      sockets.push(socket);
      return behavior.open?.(socket);
    },
  });
  return { app, port: servers.port(app), sockets, closes };
}

async function texts(wire: Wire, count: number): Promise<string[]> {
  const received: string[] = [];
  while (received.length < count) received.push((await wire.frame())?.payload.toString() ?? 'the end');
  return received;
}

describe('messages', () => {
  test('a message comes as an ArrayBuffer that is detached once the handler has returned, of whatever length', async () => {
    using servers = new Servers();
    const kept: ArrayBuffer[] = [];
    const seen = new Log<[bytes: number, sum: number, isBinary: boolean]>();
    const { port } = serve(servers, {
      maxPayloadLength: 1 << 20,
      message(_, message, isBinary) {
        kept.push(message);
        seen.push([message.byteLength, new Uint8Array(message).reduce((sum, byte) => sum + byte, 0), isBinary]);
      },
    });
    const wire = await servers.open(port);
    const lengths = [0, 1, 7, 8, 9, 125, 126, 1024, 1440, 1441, 5000, 65536, 65537, 300_000];
    for (const length of lengths) wire.write(frame(opcode.binary, new Uint8Array(length).fill(3)));
    wire.write(frame(opcode.text, 'text'));
    const entries = await seen.count(lengths.length + 1);
    // What waits for the last message goes on before that is taken back.
    await Bun.sleep(0);
    const text = Buffer.from('text').reduce((sum, byte) => sum + byte, 0);
    expect(entries).toEqual([...lengths.map((length) => [length, 3 * length, true]), [4, text, false]] as never);
    expect(kept.map((buffer) => buffer.byteLength)).toEqual(kept.map(() => 0));
  });

  test('every length up to the longest that is copied has memory of its own', async () => {
    using servers = new Servers();
    const { port } = serve(servers, { message: (socket, message, isBinary) => void socket.send(message, isBinary) });
    const wire = await servers.open(port);
    const lengths = Array.from({ length: 1450 }, (_, length) => length);
    const patterned = (length: number) => Buffer.alloc(length, length & 0xff);
    wire.write(Buffer.concat(lengths.map((length) => frame(opcode.binary, patterned(length)))));
    for (const length of lengths) expect((await wire.frame())?.payload.equals(patterned(length))).toBe(true);
  });

  test('what a handler writes into the message goes out as it was at each send', async () => {
    using servers = new Servers();
    const { port } = serve(servers, {
      maxPayloadLength: 1 << 20,
      maxBackpressure: 1 << 20,
      message(socket, message) {
        const bytes = new Uint8Array(message);
        socket.send(message);
        bytes[0] = 0x42;
        socket.send(message);
        bytes[0] = 0x43;
        socket.send(bytes.subarray(0, 1));
        socket.send(message);
        bytes[0] = 0x44;
      },
    });
    const wire = await servers.open(port);
    for (const length of [3, 2000, 100_000]) {
      wire.write(frame(opcode.text, 'A'.repeat(length)));
      const rest = 'A'.repeat(length - 1);
      expect(await texts(wire, 4)).toEqual([`A${rest}`, `B${rest}`, 'C', `C${rest}`]);
    }
  });

  test('messages of one batch do not mix, although they are lent from the same place', async () => {
    using servers = new Servers();
    const { port } = serve(servers, { message: (socket, message) => void socket.send(message) });
    const wire = await servers.open(port);
    const sent = Array.from({ length: 300 }, (_, index) => `m${String(index).padStart(4, '0')}`);
    wire.write(Buffer.concat(sent.map((text) => frame(opcode.text, text))));
    expect(await texts(wire, sent.length)).toEqual(sent);
  });

  test('a handler that transfers the message keeps what it has taken', async () => {
    using servers = new Servers();
    const taken: ArrayBuffer[] = [];
    const { port } = serve(servers, {
      maxPayloadLength: 1 << 20,
      message(socket, message) {
        taken.push(message.transfer());
        socket.send('taken');
      },
    });
    const wire = await servers.open(port);
    const sent = ['first', 'again', 'third', 'L'.repeat(70_000), 'M'.repeat(70_000)];
    for (const text of sent) {
      wire.write(frame(opcode.text, text));
      await wire.frame();
    }
    expect(taken.map(textOf)).toEqual(sent);
  });

  test('everything that is text or bytes can be sent, and nothing else', async () => {
    using servers = new Servers();
    const { port } = serve(servers, {
      open(socket) {
        expect(() => socket.send({} as never)).toThrow('Text and data can only be passed by String, ArrayBuffer or TypedArray.');
        expect(() => socket.send(5 as never)).toThrow();
        expect(() => socket.send(null as never)).toThrow();
        for (const message of ['täxt', bytesOf('buffer'), Buffer.from('node'), new Uint16Array([0x6162])]) {
          expect(socket.send(message, typeof message !== 'string')).toBe(1);
        }
        expect((socket as unknown as { send(): number }).send()).toBe(1);
      },
    });
    const wire = await servers.open(port);
    expect(await texts(wire, 5)).toEqual(['täxt', 'buffer', 'node', 'ba', '']);
  });

  test('text and binary are what the second argument says', async () => {
    using servers = new Servers();
    const { port } = serve(servers, {
      open(socket) {
        socket.send('a');
        socket.send('b', true);
        socket.send(bytesOf('c'), false);
      },
    });
    const wire = await servers.open(port);
    const codes = [await wire.frame(), await wire.frame(), await wire.frame()].map((received) => received?.opcode);
    expect(codes).toEqual([opcode.text, opcode.binary, opcode.text]);
  });

  test('fragments make one message', async () => {
    using servers = new Servers();
    const { port } = serve(servers, {
      open(socket) {
        const fragmented = socket as WebSocket<Data>;
        expect(fragmented.sendFirstFragment('one ')).toBe(1);
        expect(fragmented.sendFragment('two ')).toBe(1);
        expect(fragmented.sendLastFragment('three')).toBe(1);
      },
    });
    const wire = await servers.open(port);
    const frames = [await wire.frame(), await wire.frame(), await wire.frame()];
    expect(frames.map((part) => [part?.opcode, part?.fin, part?.payload.toString()])).toEqual([
      [opcode.text, false, 'one '],
      [opcode.continuation, false, 'two '],
      [opcode.continuation, true, 'three'],
    ]);
  });

  test('pings and pongs go both ways, and their data may be kept', async () => {
    using servers = new Servers();
    const log = new Log<[string, ArrayBuffer]>();
    const { port, sockets } = serve(servers, {
      ping: (_, data) => log.push(['ping', data]),
      pong: (_, data) => log.push(['pong', data]),
    });
    const wire = await servers.open(port);
    wire.write(frame(opcode.ping, 'from the client'));
    await log.count(1);
    expect((await wire.frame())?.payload.toString()).toBe('from the client');
    expect(sockets[0]?.ping('from the server')).toBe(1);
    expect(sockets[0]?.ping()).toBe(1);
    expect(() => sockets[0]?.ping('x'.repeat(126))).toThrow('at most 125 bytes');
    expect((await wire.frame())?.payload.toString()).toBe('from the server');
    wire.write(frame(opcode.pong, 'from the server'));
    await log.count(2);
    expect(log.entries.map(([kind, data]) => [kind, textOf(data)])).toEqual([
      ['ping', 'from the client'],
      ['pong', 'from the server'],
    ]);
  });

  test('cork runs its callback, gives the socket, and lets an error through', async () => {
    using servers = new Servers();
    const { port } = serve(servers, {
      open(socket) {
        expect(socket.cork(() => void socket.send('corked'))).toBe(socket);
        expect(() =>
          socket.cork(() => {
            throw new Error('within');
          }),
        ).toThrow('within');
      },
    });
    expect(await texts(await servers.open(port), 1)).toEqual(['corked']);
  });
});

describe('opening', () => {
  test('user data become properties of the socket, which is its own user data', async () => {
    using servers = new Servers();
    const tag = Symbol('tag');
    const order: string[] = [];
    const { port, sockets } = serve(servers, {
      upgrade(response, request, context) {
        const field = (name: string) => request.getHeader(`sec-websocket-${name}`);
        order.push('upgrade');
        response.upgrade({ id: 7, [tag]: 1 }, field('key'), field('protocol'), field('extensions'), context);
        order.push('upgraded');
      },
      open: () => void order.push('open'),
    });
    await servers.open(port);
    const socket = sockets[0] as WebSocket<Data>;
    expect(order).toEqual(['upgrade', 'open', 'upgraded']);
    expect(Object.keys(socket)).toEqual(['id']);
    expect(socket.getUserData()).toBe(socket as unknown as Data);
    expect({ ...socket.getUserData() }.id).toBe(7);
    expect(Bun.inspect(socket)).not.toContain('core');
  });

  test('without an upgrade handler every handshake is accepted, with the first subprotocol', async () => {
    using servers = new Servers();
    const { port, sockets } = serve(servers);
    const wire = await servers.connect(port);
    wire.write(handshake('/', { 'Sec-WebSocket-Protocol': 'chat, superchat' }));
    const head = await wire.head();
    expect(head).toStartWith('HTTP/1.1 101 Switching Protocols\r\n');
    expect(head).toContain('\r\nSec-WebSocket-Protocol: chat\r\n');
    expect(Object.keys(sockets[0] as object)).toEqual([]);
  });

  test('a handshake can be decided on later, and headers written before go out with it', async () => {
    using servers = new Servers();
    const { port, sockets } = serve(servers, {
      upgrade(response, request, context) {
        const key = request.getHeader('sec-websocket-key');
        response.onAborted(() => {});
        setTimeout(() => {
          response.cork(() => {
            response.writeStatus('101 Switching Protocols').writeHeader('X-Own', 'yes');
            response.upgrade({ late: true }, key, '', '', context);
          });
        });
      },
    });
    const wire = await servers.connect(port);
    wire.write(handshake('/'));
    expect(await wire.head()).toContain('X-Own: yes\r\n');
    expect(sockets[0]?.getUserData()).toMatchObject({ late: true });
  });

  test('a client that leaves before the decision is no socket', async () => {
    using servers = new Servers();
    const aborted = Promise.withResolvers<void>();
    let kept: HttpResponse | undefined;
    const { port, sockets } = serve(servers, {
      upgrade(response) {
        kept = response.onAborted(() => aborted.resolve());
      },
    });
    const wire = await servers.connect(port);
    wire.write(handshake('/'));
    wire.reset();
    await aborted.promise;
    expect(() => kept?.upgrade({}, '', '', '', {})).toThrow('must not be accessed after uWS.HttpResponse.onAborted');
    expect(sockets).toEqual([]);
  });

  test('a plain request for the path of a WebSocket goes to the route behind it', async () => {
    using servers = new Servers();
    const port = servers.port(
      App()
        .ws('/*', {})
        .get('/', (response) => void response.end('plain')),
    );
    expect(await (await fetch(`http://127.0.0.1:${port}/`)).text()).toBe('plain');
  });

  test('compression is negotiated where the route has it, but not with a browser that fails at it', async () => {
    using servers = new Servers();
    const answer = async (compression: number, fields: Readonly<Record<string, string>>) => {
      const wire = await servers.connect(servers.port(App().ws('/*', { compression })));
      wire.write(handshake('/', { 'Sec-WebSocket-Extensions': 'permessage-deflate', ...fields }));
      return (await wire.head()).includes('Sec-WebSocket-Extensions: permessage-deflate');
    };
    const safari = (version: string) => ({
      'User-Agent': `Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 Version/${version} Safari/605.1.15`,
    });
    expect(await answer(SHARED_COMPRESSOR, {})).toBe(true);
    expect(await answer(SHARED_COMPRESSOR, safari('15.4'))).toBe(true);
    expect(await answer(SHARED_COMPRESSOR, safari('15.3'))).toBe(false);
    expect(await answer(DISABLED, {})).toBe(false);
  });

  test('the address of the client is known in binary and as text', async () => {
    using servers = new Servers();
    const { port, sockets } = serve(servers);
    const wire = await servers.open(port);
    const socket = sockets[0] as WebSocket<Data>;
    expect([...new Uint8Array(socket.getRemoteAddress())].slice(-4)).toEqual([127, 0, 0, 1]);
    expect(textOf(socket.getRemoteAddressAsText())).toEndWith('127.0.0.1');
    expect(socket.getRemotePort()).toBe(wire.socket.localPort as number);
  });
});

describe('ending', () => {
  test('end() calls the close handler before it returns, with what it was given, and the client gets that too', async () => {
    using servers = new Servers();
    const order: string[] = [];
    const { port } = serve(servers, {
      message(socket) {
        socket.end(4001, 'bye');
        order.push('ended');
      },
      close: (_, code, reason) => void order.push(`close ${code} ${textOf(reason)}`),
    });
    const wire = await servers.open(port);
    wire.write(Buffer.concat([frame(opcode.text, 'x'), frame(opcode.text, 'never delivered')]));
    const close = await wire.frame();
    expect([close?.opcode, close?.payload]).toEqual([opcode.close, closePayload(4001, 'bye')]);
    expect(order).toEqual(['close 4001 bye', 'ended']);
  });

  test('end() without a code sends an empty close frame', async () => {
    using servers = new Servers();
    const { port, closes } = serve(servers, { open: (socket) => socket.end() });
    const wire = await servers.open(port);
    expect(await wire.closeCode()).toBe(1005);
    expect(closes.entries).toEqual([[0, '']]);
  });

  test('a code that no close frame may carry is told to the handler alone', async () => {
    using servers = new Servers();
    const codes = [1005, 1006, 1015, 5, 2000, 70_000];
    const { port, closes } = serve(servers, { message: (socket, message) => socket.end(Number(textOf(message)), 'why') });
    for (const code of codes) {
      const wire = await servers.open(port);
      wire.write(frame(opcode.text, String(code)));
      expect((await wire.frame())?.payload.length).toBe(0);
    }
    expect(closes.entries).toEqual(codes.map((code) => [code, 'why']));
  });

  test('a reason that is too long is cut for the client and whole for the handler', async () => {
    using servers = new Servers();
    const reason = 'é'.repeat(400_000);
    const { port, closes } = serve(servers, { open: (socket) => socket.end(4000, reason) });
    const wire = await servers.open(port);
    expect((await wire.frame())?.payload).toEqual(closePayload(4000, 'é'.repeat(61)));
    expect(closes.entries).toEqual([[4000, reason]]);
  });

  test('close() hangs up, and calls the close handler before it returns', async () => {
    using servers = new Servers();
    const order: string[] = [];
    const { port } = serve(servers, {
      message(socket) {
        socket.close();
        order.push('closed');
      },
      close: (_, code, reason) => void order.push(`close ${code} ${textOf(reason)}`),
    });
    const wire = await servers.open(port);
    wire.write(frame(opcode.text, 'x'));
    expect(await wire.frames()).toEqual([]);
    expect(order).toEqual(['close 1006 ', 'closed']);
  });

  test('what a client says when it closes is what the handler is told', async () => {
    using servers = new Servers();
    const { port, closes } = serve(servers);
    const closing = async (act: (wire: Wire) => void) => {
      const before = closes.entries.length;
      const wire = await servers.open(port);
      act(wire);
      return (await closes.count(before + 1))[before];
    };
    expect(await closing((wire) => wire.write(frame(opcode.close, closePayload(4002, 'hi'))))).toEqual([4002, 'hi']);
    expect(await closing((wire) => wire.write(frame(opcode.close)))).toEqual([1005, '']);
    expect(await closing((wire) => wire.socket.end())).toEqual([1006, 'Received TCP FIN before WebSocket close frame']);
    expect(await closing((wire) => wire.write(frame(opcode.text, 'x'.repeat(16385))))).toEqual([1006, 'Received too big message']);
    expect(await closing((wire) => wire.write(frame(opcode.text, [0xff] as never)))).toEqual([1006, 'Received invalid UTF-8']);
    expect(await closing((wire) => wire.write(frame(3, 'x')))).toEqual([1006, 'Received invalid WebSocket frame']);
  });

  test('from the beginning of the close handler on every call throws, but getUserData', async () => {
    using servers = new Servers();
    const thrown = new Log<string[]>();
    const { port } = serve(servers, {
      message: (socket) => socket.end(),
      close(socket) {
        const calls: ((socket: WebSocket<Data>) => unknown)[] = [
          (dead) => dead.send(''),
          (dead) => dead.sendFirstFragment(''),
          (dead) => dead.sendFragment(''),
          (dead) => dead.sendLastFragment(''),
          (dead) => dead.ping(),
          (dead) => dead.end(),
          (dead) => dead.close(),
          (dead) => dead.cork(() => {}),
          (dead) => dead.getBufferedAmount(),
          (dead) => dead.subscribe('x'),
          (dead) => dead.unsubscribe('x'),
          (dead) => dead.isSubscribed('x'),
          (dead) => dead.getTopics(),
          (dead) => dead.publish('x', 'y'),
          (dead) => dead.getRemoteAddress(),
          (dead) => dead.getRemoteAddressAsText(),
          (dead) => dead.getRemotePort(),
        ];
        const messages = calls.map((call) => {
          try {
            return String(call(socket));
          } catch (error) {
            return (error as Error).message;
          }
        });
        expect(socket.getUserData()).toBe(socket as unknown as Data);
        thrown.push(messages);
      },
    });
    const wire = await servers.open(port);
    wire.write(frame(opcode.text, 'x'));
    expect((await thrown.count(1))[0]).toEqual(new Array(17).fill(dead));
  });

  test('a message handler that throws or rejects is reported with its stack, and its socket alone closes with 1011', async () => {
    using servers = new Servers();
    const { port, closes } = serve(servers, {
      async message(socket, message) {
        const text = textOf(message);
        if (text === 'reject') await Promise.reject(new Error('rejected'));
        socket.send(text);
      },
    });
    const { port: throwing } = serve(servers, {
      message() {
        throw new Error('thrown');
      },
    });
    const lives = await servers.open(port);
    const said = await stderrOf(async () => {
      const wire = await servers.open(port);
      wire.write(frame(opcode.text, 'reject'));
      expect(await wire.closeCode()).toBe(1011);
      const other = await servers.open(throwing);
      other.write(frame(opcode.text, 'x'));
      expect(await other.closeCode()).toBe(1011);
    });
    expect(said).toContain('the message handler of /* failed: Error: rejected');
    expect(said).toContain('Error: thrown');
    expect(said).toContain('uws/websocket.test.ts');
    expect(closes.entries).toEqual([[1011, '']]);
    lives.write(frame(opcode.text, 'still here'));
    expect(await texts(lives, 1)).toEqual(['still here']);
  });

  test('a close handler that throws is reported and changes nothing', async () => {
    using servers = new Servers();
    const { port } = serve(servers, {
      message: (socket) => socket.end(4000),
      close() {
        throw new Error('at the end');
      },
    });
    const said = await stderrOf(async () => {
      const wire = await servers.open(port);
      wire.write(frame(opcode.text, 'x'));
      expect(await wire.closeCode()).toBe(4000);
    });
    expect(said).toContain('the close handler of /* failed: Error: at the end');
  });

  test('app.close() ends its sockets at once', async () => {
    using servers = new Servers();
    const { app, port, closes } = serve(servers);
    const wire = await servers.open(port);
    expect(app.close()).toBe(app);
    expect(closes.entries).toEqual([[1006, '']]);
    expect(await wire.frames()).toEqual([]);
  });
});
