export interface FrameOptions {
  readonly fin?: boolean;
  /** RSV1 to RSV3 as the bits 4, 2, 1. */
  readonly rsv?: number;
  readonly masked?: boolean;
  /** Claim this length instead of the true one. */
  readonly claim?: bigint;
  /** Write the length in so many bytes (1, 2 or 8), also when fewer would do. */
  readonly lengthBytes?: 1 | 2 | 8;
}

export interface ParsedFrame {
  readonly fin: boolean;
  /** RSV1 to RSV3 as the bits 4, 2, 1. */
  readonly rsv: number;
  readonly opcode: number;
  readonly isMasked: boolean;
  /** Its length is written in as few bytes as it can be (RFC 6455 §5.2). */
  readonly isMinimal: boolean;
  /** A copy, as it came: a masked one stays masked. */
  readonly payload: Buffer;
  /** Of the whole frame. */
  readonly bytes: number;
}

export const opcode: Readonly<Record<'continuation' | 'text' | 'binary' | 'close' | 'ping' | 'pong', number>>;
export const handshakeKey: string;
export function frame(code: number, payload?: string | Uint8Array, options?: FrameOptions): Buffer;
export function parseFrame(bytes: Buffer): ParsedFrame | undefined;
export function closePayload(code: number, reason?: string | Uint8Array): Buffer;
export function handshake(path: string, fields?: Readonly<Record<string, string | undefined>>, requestLine?: string): string;
