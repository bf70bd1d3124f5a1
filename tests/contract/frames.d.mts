export interface FrameOptions {
  readonly fin?: boolean;
  /** RSV1 to RSV3 as the bits 4, 2, 1. */
  readonly rsv?: number;
  readonly masked?: boolean;
}
export const opcode: Readonly<Record<'continuation' | 'text' | 'binary' | 'close' | 'ping' | 'pong', number>>;
export function frame(code: number, payload?: string | Uint8Array, options?: FrameOptions): Buffer;
export function closePayload(code: number, reason?: string): Buffer;
export function handshake(path: string, fields?: Readonly<Record<string, string | undefined>>): string;
