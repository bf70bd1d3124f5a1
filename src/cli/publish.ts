/** `ringway publish <topic> [data]`: publish one message through the admin listener of a gateway that runs. */
import { readFileSync } from 'node:fs';
import { errorCode, OperatingError } from '../operating-error.ts';
import type { AdminClient } from './admin-client.ts';
import { UsageError } from './arguments.ts';

export interface PublishOptions {
  readonly topic: string;
  /** undefined or '-': standard input. */
  readonly data: string | undefined;
  readonly file: string | undefined;
  readonly isBinary: boolean;
}

/** ret: what to print. Throws UsageError and OperatingError. */
export async function publish(
  client: AdminClient,
  options: PublishOptions,
  input: () => Promise<Uint8Array<ArrayBuffer>> = standardInput,
): Promise<string> {
  const { topic, data, file, isBinary } = options;
  if (file !== undefined && data !== undefined) throw new UsageError('a message is given by words or by --file; leave one of them out');
  const body = file !== undefined ? readMessage(file) : data === undefined || data === '-' ? await input() : data;
  const type = isBinary ? 'application/octet-stream' : 'text/plain; charset=utf-8';
  const response = await client.request(`/publish/${encodeURIComponent(topic)}`, {
    method: 'POST',
    headers: { 'content-type': type },
    body,
  });
  const answer = (await response.json().catch(() => ({}))) as { readonly error?: string };
  if (!response.ok) throw new OperatingError(`${client.label} refuses (${response.status}): ${answer.error ?? 'it does not say why'}`);
  return `published to ${topic}`;
}

function readMessage(path: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(readFileSync(path));
  } catch (error) {
    throw new UsageError(`--file ${path} cannot be read (${errorCode(error)}); write the path of a file`);
  }
}

const standardInput = () => Bun.stdin.bytes();
