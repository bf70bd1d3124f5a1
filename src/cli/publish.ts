/** `ringway publish <topic> [data]`: publish one message through the admin listener of a gateway that runs. */
import { closeSync, openSync, readSync } from 'node:fs';
import { errorCode, OperatingError } from '../operating-error.ts';
import { bodyBytesMax } from '../supervisor/admin-body.ts';
import type { AdminClient } from './admin-client.ts';
import { UsageError } from './arguments.ts';

export interface PublishOptions {
  readonly topic: string;
  /** undefined or '-': standard input. */
  readonly data: string | undefined;
  readonly file: string | undefined;
  readonly isBinary: boolean;
  /** Idempotency key. */
  readonly key: string | undefined;
}

type Bytes = Uint8Array<ArrayBuffer>;

export interface Published {
  readonly topic: string;
  /** Of the message. */
  readonly bytes: number;
  /** Where it lies, when the topic has history. */
  readonly epoch?: string;
  readonly offset?: number;
}

/** `input`: standard input, in parts. Throws UsageError and OperatingError. */
export async function publish(
  client: AdminClient,
  options: PublishOptions,
  input: () => AsyncIterable<Uint8Array> = () => Bun.stdin.stream(),
): Promise<Published> {
  const { topic, data, file, isBinary, key } = options;
  if (file !== undefined && data !== undefined) throw new UsageError('a message is given by words or by --file; leave one of them out');
  if (topic === '.' || topic === '..')
    throw new UsageError(`the topic '${topic}' cannot stand in a URL; send it as JSON to POST /publish of the admin listener`);
  const body = file !== undefined ? readMessage(file) : data === undefined || data === '-' ? await readInput(input()) : data;
  const type = isBinary ? 'application/octet-stream' : 'text/plain; charset=utf-8';
  const response = await client.request(`/publish/${encodeURIComponent(topic)}`, {
    method: 'POST',
    headers: { 'content-type': type, ...(key === undefined ? {} : { 'idempotency-key': quoted(key) }) },
    body,
  });
  const answer = (await response.json().catch(() => ({}))) as {
    readonly error?: unknown;
    readonly epoch?: string;
    readonly offset?: number;
  };
  if (!response.ok)
    throw new OperatingError(`${client.label} refuses (${response.status}): ${reasonOf(response.status, answer.error, client)}`);
  const { epoch, offset } = answer;
  return { topic, bytes: Buffer.byteLength(body), ...(epoch === undefined || offset === undefined ? {} : { epoch, offset }) };
}

/** RFC 8941 §3.3.3. Throws UsageError for what such a string cannot say. */
function quoted(key: string): string {
  if (!/^[\x20-\x7e]{1,128}$/.test(key)) throw new UsageError(`--key is '${key}'; write 1 to 128 letters, digits and signs of ASCII`);
  return `"${key.replaceAll(/["\\]/g, '\\$&')}"`;
}

function reasonOf(status: number, error: unknown, client: AdminClient): string {
  if (status === 401 && !client.hasToken)
    return 'it wants a token, and this user has none here for it; say its admin.token with --token or ADMIN_TOKEN';
  return typeof error === 'string' ? error : 'it does not say why';
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
