/**
 * Opens a socket to a Redis server and logs in, before ioredis has it.
 *
 * Role: below connection.ts, as the `Connector` of an ioredis client. Doing this here keeps passwords out of ioredis, whose errors hold the
 * arguments of commands, and tells what else would look like a closed connection: protected mode, a login that is refused, TLS where
 * there is none, and the other way round.
 */
import { readFileSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { AbstractConnector } from 'ioredis';
import type { RedisAddress, RedisLogin, RedisTlsSettings } from '../../config/redis.ts';
import { type Failure, LinkError } from './failure.ts';

export type Address = RedisAddress | { readonly path: string };

export interface Way {
  readonly address: Address;
  readonly login: RedisLogin;
  readonly tls: RedisTlsSettings | undefined;
}

/** How far it has come, for who gives up waiting. */
export interface Progress {
  step: 'connect' | 'handshake' | 'login' | 'done';
}

export function silent(ms: number, step?: Progress['step']): Failure {
  const what = step === 'handshake' ? ' to the TLS handshake; is this its port for TLS?' : '';
  return { kind: 'gone', text: `no answer for ${ms / 1000} s${what}` };
}

/** The first line of an answer is not longer. */
const lineBytesMax = 1024;
/** A TLS alert: what a server for TLS says to who speaks plainly (RFC 8446 §5.1). */
const tlsAlert = 0x15;

/** ret: a class, as ioredis wants it */
export function connectorOf(way: Way, progress: Progress): new (options: unknown) => AbstractConnector {
  return class extends AbstractConnector {
    #socket: Socket | undefined;

    constructor() {
      super(0);
    }

    override async connect(): Promise<Socket> {
      this.connecting = true;
      const socket = open(way);
      this.#socket = socket;
      await greet(socket, way, progress);
      return socket;
    }

    override disconnect(): void {
      this.connecting = false;
      this.#socket?.destroy();
    }
  };
}

function open({ address, tls }: Way): Socket {
  if (tls === undefined) return connectTcp('path' in address ? { path: address.path } : { host: address.host, port: address.port });
  return connectTls({ ...address, ...tlsOptions(tls) });
}

/** Files are read at each connection, so that renewed certificates are taken. */
function tlsOptions(tls: RedisTlsSettings): ConnectionOptions {
  const read = (path: string, option: string): Buffer => {
    try {
      return readFileSync(path);
    } catch (error) {
      throw new LinkError({ kind: 'refused', text: `redis.tls.${option} cannot be read: ${(error as Error).message}` });
    }
  };
  return {
    ...(tls.caFile === undefined ? {} : { ca: read(tls.caFile, 'ca') }),
    ...(tls.certFile === undefined ? {} : { cert: read(tls.certFile, 'cert') }),
    ...(tls.keyFile === undefined ? {} : { key: read(tls.keyFile, 'key') }),
    ...(tls.serverName === undefined ? {} : { servername: tls.serverName }),
    rejectUnauthorized: tls.verify,
  };
}

/** Log in, or say PING, and read the one line that answers. Then nobody reads the socket. */
function greet(socket: Socket, { login, tls }: Way, progress: Progress): Promise<void> {
  return new Promise((resolve, reject) => {
    let line = Buffer.alloc(0);
    const failed = (error: Error) => {
      const isMute = progress.step === 'login' && line.byteLength === 0 && tls === undefined;
      reject(
        isMute
          ? new LinkError({ kind: 'gone', text: `it hung up at the first word (${error.message}); does it want TLS, rediss://?` })
          : error,
      );
    };
    const ended = () => failed(new Error('the server closed the connection'));
    const read = (chunk: Buffer) => {
      line = Buffer.concat([line, chunk]);
      const end = line.indexOf('\r\n');
      if (end < 0 && line.byteLength < lineBytesMax && line[0] !== tlsAlert) return;
      socket.pause();
      socket.off('data', read);
      socket.off('close', ended);
      const error = judge(line, end);
      if (error !== undefined) return reject(error);
      progress.step = 'done';
      resolve();
    };
    // It stays: an error without a listener would end the process, and later ones are told by ioredis.
    socket.on('error', failed);
    socket.once('close', ended);
    socket.once('connect', () => {
      progress.step = tls === undefined ? 'login' : 'handshake';
    });
    socket.once(tls === undefined ? 'connect' : 'secureConnect', () => {
      progress.step = 'login';
      socket.on('data', read);
      socket.write(encode(greeting(login)));
    });
  });
}

function greeting({ username, password }: RedisLogin): string[] {
  if (password === undefined) return ['PING'];
  return username === undefined ? ['AUTH', password] : ['AUTH', username, password];
}

function encode(words: readonly string[]): string {
  return `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`;
}

/** ret: undefined: go on */
function judge(line: Buffer, end: number): Error | undefined {
  if (line[0] === tlsAlert) {
    return new LinkError({ kind: 'refused', text: 'it speaks TLS on this port; write rediss:// instead of redis://' });
  }
  const text = line.toString('utf8', 1, end < 0 ? line.byteLength : end);
  const isError = line[0] === 0x2d;
  if (end < 0 || (line[0] !== 0x2b && !isError)) {
    return new LinkError({ kind: 'refused', text: 'it does not speak the protocol of Redis; is this its address?' });
  }
  if (!isError || mayGoOn.test(text)) return undefined;
  const error = new Error(text);
  error.name = 'ReplyError';
  return error;
}

/** No right to say PING, a server that is busy loading, and a password that nobody asks for keep nobody from pub/sub. */
const mayGoOn = /^(NOPERM|LOADING|MASTERDOWN) |without any password configured|no password is set$/;
