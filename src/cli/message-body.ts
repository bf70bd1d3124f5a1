/**
 * The message of a command: words of the command line, a file, or standard input; within what the admin listener takes.
 * Role: up: publish.ts, topics.ts.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { errorCode } from '../operating-error.ts';
import { bodyBytesMax } from '../supervisor/admin-body.ts';
import { UsageError } from './arguments.ts';

export interface GivenMessage {
  /** undefined or '-': standard input. */
  readonly data: string | undefined;
  readonly file: string | undefined;
  readonly isBinary: boolean;
}

type Bytes = Uint8Array<ArrayBuffer>;

/** Standard input, in parts. */
export type Input = () => AsyncIterable<Uint8Array>;
export const standardInput: Input = () => Bun.stdin.stream();

/** ret: as a request to the admin listener carries it. Throws UsageError. */
export async function messageBody({ data, file, isBinary }: GivenMessage, input: Input): Promise<{ body: string | Bytes; type: string }> {
  if (file !== undefined && data !== undefined) throw new UsageError('a message is given by words or by --file; leave one of them out');
  const body = file !== undefined ? readMessage(file) : data === undefined || data === '-' ? await readInput(input()) : data;
  return { body, type: isBinary ? 'application/octet-stream' : 'text/plain; charset=utf-8' };
}

function readMessage(path: string): Bytes {
  try {
    const fd = openSync(path, 'r');
    try {
      // A pipe has no size to ask for, and some files have no end.
      const bytes = Buffer.alloc(bodyBytesMax + 1);
      let length = 0;
      for (let read = 1; read > 0 && length < bytes.length; length += read) read = readSync(fd, bytes, length, bytes.length - length, null);
      return bounded(bytes.subarray(0, length));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`--file ${path} cannot be read (${errorCode(error)}); write the path of a file`);
  }
}

async function readInput(input: AsyncIterable<Uint8Array>): Promise<Bytes> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of input) {
    chunks.push(chunk);
    length += chunk.byteLength;
    if (length > bodyBytesMax) break;
  }
  return bounded(Buffer.concat(chunks));
}

function bounded(bytes: Bytes): Bytes {
  if (bytes.byteLength > bodyBytesMax) throw new UsageError(`the message is larger than ${bodyBytesMax} bytes; publish it in parts`);
  return bytes;
}
