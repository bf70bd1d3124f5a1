/**
 * A client, or a crowd of them, that asks for more than its share, until its standard input ends.
 *
 * Role: a process of its own, so that what the tests of overload measure meanwhile is the gateway's doing and not that of a client in the same
 * event loop. Started as `bun overload-flood.ts KIND PORT`; writes a line when the flood has begun.
 */
import { connect, type Socket } from 'node:net';
import { constants, deflateRawSync } from 'node:zlib';
import { frame, handshake, opcode } from '../support/frames.mjs';
import { Wire } from '../support/wire.ts';

const blockBytes = 64 * 1024;

function repeated(piece: Uint8Array): Buffer {
  return Buffer.concat(Array.from({ length: Math.max(1, Math.floor(blockBytes / piece.length)) }, () => piece));
}

const pouring = new Set<Socket>();

/** Write the same for ever, as fast as it is taken. A socket that ends is no matter: others are judged, not this one. */
function pour(socket: Socket, block: Uint8Array): void {
  pouring.add(socket);
  socket.on('error', () => {});
  const go = () => {
    while (!socket.destroyed && socket.write(block));
  };
  socket.on('drain', go);
  go();
}

const several = <Value>(count: number, make: (index: number) => Promise<Value>): Promise<Value[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => make(index)));

async function messages(port: number, path: string, bytes: number): Promise<void> {
  const block = repeated(frame(opcode.binary, Buffer.alloc(bytes, 'x')));
  for (const wire of await several(8, () => Wire.open(port, path))) pour(wire.socket, block);
}

const floods: Record<string, (port: number) => Promise<void>> = {
  'tiny messages': (port) => messages(port, '/quick', 16),
  // Not tiny, since all that a gateway has received of a flood is served in the end, and the test waits for that.
  'messages to a slow handler': (port) => messages(port, '/busy', 200),
  'messages to an asynchronous handler': (port) => messages(port, '/later', 200),

  /** A frame of a kilobyte is a megabyte of zeros (RFC 7692). */
  'compressed bombs': async (port) => {
    const deflated = deflateRawSync(Buffer.alloc(1 << 20), { finishFlush: constants.Z_SYNC_FLUSH });
    const bomb = frame(opcode.binary, deflated.subarray(0, -4), { rsv: 4 });
    const open = () => Wire.open(port, '/bombs', { 'Sec-WebSocket-Extensions': 'permessage-deflate' });
    // Several times what can be inflated, but not for ever: the kernel gives what it has received of a client also after that has reset.
    const some = Buffer.concat(Array.from({ length: 10 }, () => bomb));
    for (const { socket } of await several(40, open)) {
      pouring.add(socket);
      socket.on('error', () => {});
      setInterval(() => socket.write(some), 250);
      socket.write(some);
    }
  },

  /** Bodies that are read as they come, and requests one behind the other. */
  'uploads and pipelines': async (port) => {
    const bodies = await several(4, () => Wire.connect(port));
    for (const wire of bodies) {
      wire.write(`POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: ${2 ** 40}\r\n\r\n`);
      pour(wire.socket, Buffer.alloc(blockBytes));
    }
    const request = Buffer.from('GET /quick HTTP/1.1\r\nHost: a\r\n\r\n');
    for (const wire of await several(4, () => Wire.connect(port))) {
      wire.socket.removeAllListeners('data').resume();
      pour(wire.socket, repeated(request));
    }
  },

  'readers that do not read': async (port) => {
    for (const wire of await several(50, () => Wire.open(port, '/reader'))) {
      wire.socket.pause();
      pour(wire.socket, repeated(frame(opcode.text, 'more')));
    }
  },

  'handshakes of clients that leave': async (port) => {
    const again = (): void => {
      const socket = connect({ port, host: '127.0.0.1' });
      socket.on('error', () => {});
      socket.on('close', () => setImmediate(again));
      socket.write(handshake('/quick'));
      // Every other leaves as one that crashes.
      socket.once('data', () => (Math.random() < 0.5 ? socket.resetAndDestroy() : socket.destroy()));
    };
    for (let i = 0; i < 100; i++) again();
  },
};

/** Their names, for the tests. */
export const kinds = Object.keys(floods);

if (import.meta.main) {
  const [kind = '', port = ''] = process.argv.slice(2);
  const flood = floods[kind];
  if (flood === undefined) throw new Error(`no flood is named ${kind}`);
  // At the word of the test, or when that is gone. What the kernel holds of a flood is thrown away by a reset; else it would be served.
  process.stdin.on('end', () => {
    for (const socket of pouring) socket.resetAndDestroy();
    setImmediate(() => process.exit(0));
  });
  process.stdin.resume();
  await flood(Number(port));
  console.log('flooding');
}
