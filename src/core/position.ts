/**
 * Positions in logs, and how they are written.
 * Role: what everything above the core calls a place in a log by.
 */

/** Where one is in a log. */
export interface Position {
  /** Of the log's life: another one whenever its past is gone. 16 lower-case hex digits, not all of them 0. */
  readonly epoch: string;
  /** Of an entry: 1, 2, 3 … in its epoch; 0: before the first. */
  readonly offset: number;
}

/** As text: `<epoch>:<offset>`. */
export function formatPosition({ epoch, offset }: Position): string {
  return `${epoch}:${offset}`;
}

/** ret: undefined: it is none */
export function parsePosition(text: string): Position | undefined {
  const match = /^([0-9a-f]{16}):(0|[1-9][0-9]{0,15})$/.exec(text);
  if (match === null || match[1] === '0000000000000000') return undefined;
  const offset = Number(match[2]);
  return Number.isSafeInteger(offset) ? { epoch: match[1] as string, offset } : undefined;
}

const hex32 = (value: number) => value.toString(16).padStart(8, '0');

/** An epoch as the core has it, in two halves of 32 bits. */
export function epochOf(low: number, high: number): string {
  return hex32(high) + hex32(low);
}
