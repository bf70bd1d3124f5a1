/** `ringway publish <topic> [data]`: publish one message through the admin listener of a gateway that runs. */
import type { AdminClient } from './admin-client.ts';
import { UsageError } from './arguments.ts';
import { type GivenMessage, type Input, messageBody, standardInput } from './message-body.ts';

export interface PublishOptions extends GivenMessage {
  readonly topic: string;
  /** Idempotency key. */
  readonly key: string | undefined;
}

export interface Published {
  readonly topic: string;
  /** Of the message. */
  readonly bytes: number;
  /** Where it lies, when the topic has history. */
  readonly epoch?: string;
  readonly offset?: number;
}

/** Throws UsageError and OperatingError. */
export async function publish(client: AdminClient, options: PublishOptions, input: Input = standardInput): Promise<Published> {
  const { topic, key } = options;
  if (topic === '.' || topic === '..')
    throw new UsageError(`the topic '${topic}' cannot stand in a URL; send it as JSON to POST /publish of the admin listener`);
  const { body, type } = await messageBody(options, input);
  const { epoch, offset } = await client.answer<Pick<Published, 'epoch' | 'offset'>>(`/publish/${encodeURIComponent(topic)}`, {
    method: 'POST',
    headers: { 'content-type': type, ...(key === undefined ? {} : { 'idempotency-key': quoted(key) }) },
    body,
  });
  return { topic, bytes: Buffer.byteLength(body), ...(epoch === undefined || offset === undefined ? {} : { epoch, offset }) };
}

/** RFC 8941 §3.3.3. Throws UsageError for what such a string cannot say. */
function quoted(key: string): string {
  if (!/^[\x20-\x7e]{1,128}$/.test(key)) throw new UsageError(`--key is '${key}'; write 1 to 128 letters, digits and signs of ASCII`);
  return `"${key.replaceAll(/["\\]/g, '\\$&')}"`;
}
