/**
 * Names for connections that say nothing to who holds them: a UUID in which the place of the connection is encrypted.
 *
 * Role: `socket.id`, and back. Nothing is kept for a name, and no name can be guessed: each process has a key of its own, so what another has named is
 * random bytes to this one.
 *
 *   block     slot u32 | generation u32 | zeros        encrypted as one block of AES-128
 *   UUID      those 128 bits, but for the 6 that say what kind of UUID it is (RFC 9562 §5.4: random); reading tries what they may have been
 */
import { type Cipheriv, createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import type { ConnectionName } from './connection.ts';

const blockBytes = 16;
const lost = 64;
const form = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

export class ConnectionIds {
  readonly #key = randomBytes(16);
  readonly #cipher: Cipheriv;
  readonly #block = Buffer.alloc(blockBytes);

  constructor() {
    this.#cipher = createCipheriv('aes-128-ecb', this.#key, null).setAutoPadding(false);
  }

  of({ slot, generation }: ConnectionName): string {
    this.#block.writeUInt32LE(slot, 0);
    this.#block.writeUInt32LE(generation, 4);
    const id = this.#cipher.update(this.#block);
    id[6] = ((id[6] as number) & 0x0f) | 0x40;
    id[8] = ((id[8] as number) & 0x3f) | 0x80;
    const hex = id.toString('hex');
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  }

  /** ret: undefined: this process has not named a connection so. The connection may have ended. */
  find(id: string): ConnectionName | undefined {
    if (!form.test(id)) return undefined;
    const read = Buffer.from(id.replaceAll('-', ''), 'hex');
    const candidates = Buffer.alloc(blockBytes * lost);
    for (let bits = 0; bits < lost; bits++) {
      const at = bits * blockBytes;
      read.copy(candidates, at);
      candidates[at + 6] = ((read[6] as number) & 0x0f) | ((bits >> 2) << 4);
      candidates[at + 8] = ((read[8] as number) & 0x3f) | ((bits & 3) << 6);
    }
    const decipher = createDecipheriv('aes-128-ecb', this.#key, null).setAutoPadding(false);
    const blocks = decipher.update(candidates);
    for (let at = 0; at < blocks.length; at += blockBytes) {
      if (blocks.readBigUInt64LE(at + 8) === 0n) return { slot: blocks.readUInt32LE(at), generation: blocks.readUInt32LE(at + 4) };
    }
    return undefined;
  }
}
