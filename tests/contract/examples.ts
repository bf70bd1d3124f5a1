/**
 * How each example program of uWebSockets.js is spoken to, and what its answers are noted as.
 *
 * Role: examples.test.ts runs every program on both sides and compares the notes. The programs lie in the installed package and are run
 * from there as they are.
 */
import { expect } from 'bun:test';
import { closePayload, frame, handshake, opcode } from '../support/frames.mjs';
import { type ConnectOptions, NotedConnection } from './noted-connection.ts';
import type { Program } from './program.ts';

/** One running example, and the connections made to it. */
export class Talk {
  readonly program: Program;
  readonly #port: number;
  readonly #wires: NotedConnection[] = [];

  constructor(program: Program, port: number) {
    this.program = program;
    this.#port = port;
  }

  async connect(options: ConnectOptions = {}): Promise<NotedConnection> {
    const wire = await NotedConnection.connect(this.#port, options);
    this.#wires.push(wire);
    return wire;
  }

  async get(path: string, options: ConnectOptions & { readonly fields?: string } = {}): Promise<string> {
    return this.ask(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n${options.fields ?? ''}\r\n`, options);
  }

  async ask(request: string, options: ConnectOptions = {}): Promise<string> {
    const wire = await this.connect(options);
    wire.write(request);
    return wire.response();
  }

  async websocket(path = '/', fields: Record<string, string> = {}): Promise<NotedConnection> {
    const wire = await this.connect();
    wire.write(handshake(path, fields));
    expect(await wire.head()).toStartWith('HTTP/1.1 101 ');
    return wire;
  }

  close(): void {
    for (const wire of this.#wires) wire.destroy();
  }
}

export interface Example {
  /** Speaks to it as its comments say. ret: what was seen */
  readonly talk: (talk: Talk) => Promise<unknown>;
  /** Part of what must have been seen: that two silent sides are not taken for two right ones. */
  readonly seen: string;
  /** It prints so many lines that its output is not compared. */
  readonly isTalkative?: boolean;
  /** The build that it is compared with where it is not the reference. */
  readonly original?: 'older';
}

const post = (path: string, body: string) => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

/** Echoes of text and binary, a plain request beside them, and the end of the socket. */
async function echo(talk: Talk, path = '/'): Promise<unknown> {
  const wire = await talk.websocket(path);
  wire.write(frame(opcode.text, 'hello'));
  const seen: unknown[] = [await wire.frame()];
  wire.write(frame(opcode.binary, Buffer.from([0, 1, 2])));
  seen.push(await wire.frame(), await talk.get('/'));
  wire.write(frame(opcode.close, closePayload(1000)));
  seen.push(await wire.closed());
  await talk.program.line(/^WebSocket closed$/);
  return seen;
}

export const examples: Readonly<Record<string, Example>> = {
  AsyncFunction: { talk: (talk) => talk.get('/'), seen: 'Hey wait for me!' },
  AutomaticPortSelection: { talk: (talk) => talk.get('/any'), seen: 'Hello World!' },
  Backpressure: {
    async talk(talk) {
      const wire = await talk.websocket();
      const frames = await wire.frames(500);
      // It never waits for anything else while its client keeps up with it.
      wire.pause();
      await talk.program.line(/^Sent \d+ messages last second$/);
      const beside = await talk.get('/');
      wire.resume();
      frames.push(...(await wire.frames(500)));
      return [frames, beside];
    },
    seen: "This is a message, let's call it 999",
    isTalkative: true,
  },
  Broadcast: {
    async talk(talk) {
      const [one, two] = [await talk.websocket(), await talk.websocket()];
      // Whoever has answered a ping has joined.
      for (const wire of [one, two]) {
        wire.write(frame(opcode.ping));
        await wire.frame();
      }
      one.write(frame(opcode.text, 'to the others'));
      const seen = [await two.frame()];
      two.write(frame(opcode.binary, 'back'));
      return [...seen, await one.frame(), await talk.get('/')];
    },
    seen: 'to the others',
  },
  GracefulShutdown: {
    async talk(talk) {
      const seen = [await talk.get('/nothing-here')];
      talk.close();
      return [...seen, await talk.program.outcome()];
    },
    seen: '404',
  },
  Headers: { talk: (talk) => talk.get('/', { fields: 'X-One: two\r\nAccept: */*\r\n' }), seen: 'x-one' },
  HelloWorld: { talk: (talk) => talk.get('/'), seen: 'Hello World!' },
  JsonPost: {
    async talk(talk) {
      const seen = [await talk.ask(post('/path', '{"a":[1,2]}'))];
      await talk.program.line(/a: \[/);
      seen.push(await talk.ask(post('/path', 'no JSON')));
      await talk.program.line(/^Invalid JSON/);
      return seen;
    },
    seen: 'Thanks for this json!',
    // Node and Bun print an object differently.
    isTalkative: true,
  },
  ProxyProtocol: {
    async talk(talk) {
      const header = Buffer.from('0d0a0d0a000d0a515549540a2111000c0a000001c0a80102303901bb', 'hex').toString('latin1');
      const wire = await talk.connect();
      wire.write(Buffer.from(`${header}GET / HTTP/1.1\r\nHost: a\r\n\r\n`, 'latin1'));
      return [await wire.response()];
    },
    seen: 'Your IP as seen by the origin server is: ',
  },
  PubSub: {
    async talk(talk) {
      const [one, two] = [await talk.websocket(), await talk.websocket()];
      one.write(frame(opcode.text, '21 degrees'));
      two.write(frame(opcode.ping, 'nothing is published to the wildcard'));
      return [await two.frame(), await talk.get('/')];
    },
    seen: 'Nothing to see here!',
  },
  RateLimit: {
    async talk(talk) {
      const wire = await talk.websocket();
      wire.write(Buffer.concat([frame(opcode.text, 'one'), frame(opcode.text, 'two')]));
      return [await wire.frame(), await wire.frame(), await talk.get('/')];
    },
    seen: 'over limit! please slow down.',
  },
  Router: {
    async talk(talk) {
      const seen: unknown[] = [await talk.ask(post('/anything', ''))];
      for (const path of ['/user/agent', '/static/yes', '/candy/caramel', '/other'])
        seen.push(await talk.get(path, { fields: 'User-Agent: contract\r\n' }));
      return seen;
    },
    seen: 'Have some caramel!',
  },
  ServerName: {
    async talk(talk) {
      const wire = await talk.connect({ tls: { servername: 'some.test' } });
      wire.write('GET / HTTP/1.1\r\nHost: some.test\r\n\r\n');
      const seen = [await wire.response()];
      const again = await talk.connect({ tls: { servername: 'localhost' } });
      return [...seen, again.socket.remoteAddress];
    },
    seen: 'Hello World!',
  },
  ServerSentEvents: {
    async talk(talk) {
      const wire = await talk.connect();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n');
      const head = await wire.head();
      const chunk = await wire.chunk();
      wire.destroy();
      await talk.program.line(/^Client with id: \d+ disconnected$/);
      return [head, chunk];
    },
    seen: 'data: {\\"message\\":\\"Hello world!\\"}',
    isTalkative: true,
  },
  SlowReceiver: {
    async talk(talk) {
      // The slow receiver in the program itself is a client of Node's ws, which is another one in Bun: so there is one more.
      const wire = await talk.websocket();
      const first = await wire.frame();
      wire.pause();
      const [, code] = await talk.program.line(/^Client disconnected: (\d+), /);
      return [first !== 'closed' && /^\d+$/.test(first.payload), code];
    },
    seen: '1006',
    isTalkative: true,
  },
  Upgrade: { talk: (talk) => echo(talk, '/some/url'), seen: 'hello' },
  // The newer build closes the socket as soon as it is open, when the timer before `res.upgrade()` has taken a second.
  UpgradeAsync: { talk: (talk) => echo(talk, '/some/url'), seen: 'hello', original: 'older' },
  Upload: {
    async talk(talk) {
      const seen = [await talk.ask(post('/file', 'u'.repeat(100))), await talk.ask(post('/file', ''))];
      const wire = await talk.connect();
      wire.write('POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc');
      await talk.program.line(/^Got chunk of data with length 3, isLast: false$/);
      wire.destroy();
      await talk.program.line(/^Eh, okay/);
      return seen;
    },
    seen: 'Thanks for the data!',
  },
  VideoStreamer: {
    async talk(talk) {
      const slow = await talk.connect();
      slow.write('GET /sintel.mkv HTTP/1.1\r\nHost: a\r\n\r\n');
      slow.pause();
      const quick = await talk.get('/sintel.mkv');
      slow.resume();
      const seen = [quick, await slow.response(), await talk.get('/')];
      const cut = await talk.connect();
      cut.write('GET /sintel.mkv HTTP/1.1\r\nHost: a\r\n\r\n');
      cut.pause();
      await talk.program.until(
        'the third stream',
        () => talk.program.lines.filter((line) => line.startsWith('Stream was opened')).length === 3,
      );
      cut.reset();
      await talk.program.until('all are closed', () => talk.program.lines.includes('Stream was closed, openStreams: 0'));
      return seen;
    },
    seen: 'sha1',
    isTalkative: true,
  },
  VideoStreamerSync: {
    talk: async (talk) => [await talk.get('/sintel.mkv', { tls: {} }), await talk.get('/', { tls: {} })],
    seen: 'sha1',
  },
  WebSockets: { talk: (talk) => echo(talk), seen: 'hello' },
  WorkerThreads: {
    async talk(talk) {
      await talk.program.until(
        'both threads',
        () => talk.program.lines.filter((line) => /^Listening .* from thread \d/.test(line)).length === 2,
      );
      const seen = [];
      for (let i = 0; i < 8; i++) seen.push(await talk.get('/', { tls: {} }));
      return seen;
    },
    seen: 'Hello Worker!',
    isTalkative: true,
  },
};

/** Examples that are not run, and why. */
export const left: Readonly<Record<string, string>> = {
  H3lloWorld: 'HTTP/3: an experiment of the original that is not in its typings',
};
