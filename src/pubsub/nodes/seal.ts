/**
 * Signatures of envelopes, for who shares the other side of a link with others: HMAC-SHA-256 (RFC 2104) with a key that all nodes have.
 *
 * Role: up: envelope.ts signs and checks. Down: node:crypto. What is signed is the envelope, the prefix and the topic, so that none is
 * good for another topic. The envelope tells how long it is, and how long the prefix: no two of these are the same bytes.
 * What was signed may be sent again by who has heard it; sequences tell, as long as they are remembered.
 */
import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto';

export const signatureBytes = 32;

export class Seal {
  readonly #keys: readonly KeyObject[];
  readonly #prefix: string;

  /** `keys`: at least one; the first signs, and each of them is believed. */
  constructor(keys: readonly string[], prefix: string) {
    this.#keys = keys.map((key) => createSecretKey(Buffer.from(key)));
    this.#prefix = prefix;
  }

  /** `topic`: one character for each byte. */
  sign(envelope: Uint8Array, topic: string): Buffer {
    return this.#signature(this.#keys[0] as KeyObject, envelope, topic);
  }

  /** Whether this is the signature of one of the keys. Takes as long for a wrong one as for a right one of the same key. */
  isOf(envelope: Uint8Array, topic: string, signature: Uint8Array): boolean {
    if (signature.byteLength !== signatureBytes) return false;
    return this.#keys.some((key) => timingSafeEqual(this.#signature(key, envelope, topic), signature));
  }

  #signature(key: KeyObject, envelope: Uint8Array, topic: string): Buffer {
    return createHmac('sha256', key).update(envelope).update(this.#prefix).update(topic, 'latin1').digest();
  }
}
