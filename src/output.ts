/**
 * Standard output and standard error, for what must not wait for whoever reads them: a full disk, a terminal that is gone and a reader that has
 * stopped cost lines, and nothing else.
 *
 *   write() ──> waiting, at most a megabyte ──one write(2) at a time, by a thread of the runtime──> descriptor
 *                  └── no room, or the write fails: dropped, counted, and told in one line when there is room again
 *
 * Role: below log.ts, and below the relay of what workers write. A descriptor is shared with other processes, so it is not made non-blocking:
 * that would change it for them as well.
 */
import { fstatSync, write, writeSync } from 'node:fs';
import { errorCode } from './operating-error.ts';

const waitingBytesMax = 1 << 20;
/** Where a write has failed, the next one is tried so much later. */
const failedMs = 1000;
/** Somebody has made the descriptor non-blocking, and it is full. */
const fullMs = 20;
/** A write that takes longer waits for a reader. */
const stalledMs = 100;
/** Longer than a write takes that does not wait. */
const handOverMs = 10;

type Write = (fd: number, bytes: Uint8Array, offset: number, length: number, done: (error: unknown, written: number) => void) => void;

export interface OutputOptions {
  /** Bytes that may wait. */
  readonly waitingBytesMax?: number;
  /** The line that tells of lines that were lost; `reason`: such as ENOSPC, or why there was no room. */
  lossLine?(lines: number, reason: string): string;
  /** Told of each loss. Must not throw. */
  onLoss?(lines: number): void;
  /** For tests: how bytes are written. */
  readonly write?: Write;
}

const lossText = (lines: number, reason: string) => `ringway: ${lines} lines of output were lost (${reason})\n`;

export class Output {
  lossLine: (lines: number, reason: string) => string;
  onLoss: (lines: number) => void;
  /** Lines lost since the start of the process. */
  lost = 0;
  readonly #fd: number;
  readonly #max: number;
  readonly #write: Write;
  #waiting: (string | Uint8Array)[] = [];
  #waitingBytes = 0;
  #waitingLines = 0;
  /** Of them, how many were not told yet, and why the last of them was lost. */
  #untold = 0;
  #reason = '';
  #busy = false;
  #begins = false;
  /** When the present write(2) began; 0: there is none. */
  #since = 0;
  readonly #idle: (() => void)[] = [];

  constructor(fd: number, options: OutputOptions = {}) {
    this.#fd = fd;
    this.#max = options.waitingBytesMax ?? waitingBytesMax;
    this.#write = options.write ?? ((to, bytes, offset, length, done) => write(to, bytes, offset, length, null, done));
    this.lossLine = options.lossLine ?? lossText;
    this.onLoss = options.onLoss ?? (() => {});
  }

  /** `text`: whole lines, `lines` of them. Never throws, never waits. What is given as bytes is not to be changed afterwards. */
  write(text: string | Uint8Array, lines = 1): void {
    const bytes = typeof text === 'string' ? Buffer.byteLength(text) : text.byteLength;
    if (this.#waitingBytes + bytes > this.#max) {
      this.#lose(lines, 'nobody reads it, or not fast enough');
      return;
    }
    this.#waiting.push(text);
    this.#waitingBytes += bytes;
    this.#waitingLines += lines;
    if (this.#busy || this.#begins) return;
    this.#begins = true;
    // Lines that are written one after the other leave together; and what is written right before the process exits is still here then.
    queueMicrotask(() => {
      this.#begins = false;
      this.#next();
    });
  }

  /** Resolves when nothing waits any more, or the time is over. */
  async settled(timeoutMs: number): Promise<void> {
    if (!this.#busy && this.#waiting.length === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#idle.push(resolve);
    const timer = setTimeout(resolve, timeoutMs);
    await promise;
    clearTimeout(timer);
  }

  /** The process exits now: write what waits, unless that would wait for a reader. */
  end(): void {
    if (this.#since !== 0 && performance.now() - this.#since > stalledMs) return;
    // The thread that writes ends with the process.
    if (this.#since !== 0) Bun.sleepSync(handOverMs);
    if (this.#waiting.length === 0) return;
    const { bytes } = this.#take();
    try {
      for (let at = 0; at < bytes.byteLength; ) at += writeSync(this.#fd, bytes, at);
    } catch {
      // There is nobody left to tell.
    }
  }

  #take(): { bytes: Uint8Array; lines: number; told: number } {
    const [lines, told] = [this.#waitingLines, this.#untold];
    const waiting = told === 0 ? this.#waiting : [...this.#waiting, this.lossLine(told, this.#reason)];
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#waitingLines = 0;
    const bytes = Buffer.concat(waiting.map((text) => (typeof text === 'string' ? Buffer.from(text) : text)));
    return { bytes, lines, told };
  }

  #next(): void {
    if (this.#busy) return;
    if (this.#waiting.length === 0) {
      for (const resolve of this.#idle.splice(0)) resolve();
      return;
    }
    this.#busy = true;
    const { bytes, lines, told } = this.#take();
    let at = 0;
    const go = () => {
      this.#since = performance.now();
      this.#write(this.#fd, bytes, at, bytes.byteLength - at, onWritten);
    };
    const onWritten = (error: unknown, written: number) => {
      this.#since = 0;
      if (error !== null && error !== undefined) {
        const code = errorCode(error);
        if (code === 'EAGAIN') {
          setTimeout(go, fullMs).unref();
          return;
        }
        this.#lose(lines, code);
        setTimeout(() => this.#free(), failedMs).unref();
        return;
      }
      at += written;
      if (at < bytes.byteLength) {
        go();
        return;
      }
      this.#untold -= told;
      this.#free();
    };
    go();
  }

  #free(): void {
    this.#busy = false;
    this.#next();
  }

  #lose(lines: number, reason: string): void {
    this.lost += lines;
    this.#untold += lines;
    this.#reason = reason;
    this.onLoss(lines);
  }
}

const outputs = new Map<number, Output>();

/** The one that everything of this process is to go through. */
export function outputTo(fd: 1 | 2): Output {
  const output = outputs.get(fd);
  if (output !== undefined) return output;
  // Both are one pipe or file, as after `2>&1`: two writers would mix parts of lines when it is full.
  const made = fd === 2 && isSameFile() ? outputTo(1) : new Output(fd);
  if (!isKnown(made)) process.on('exit', () => made.end());
  outputs.set(fd, made);
  return made;
}

function isKnown(output: Output): boolean {
  return [...outputs.values()].includes(output);
}

function isSameFile(): boolean {
  try {
    const [out, err] = [fstatSync(1), fstatSync(2)];
    return out.dev === err.dev && out.ino === err.ino;
  } catch {
    // One of them is closed.
    return false;
  }
}

/** Lines that this process could not write. */
export function linesLost(): number {
  return [...new Set(outputs.values())].reduce((sum, { lost }) => sum + lost, 0);
}

/** Before an orderly end: what was written has gone out, or the time is over. */
export async function outputsSettled(timeoutMs: number): Promise<void> {
  await Promise.all([...outputs.values()].map((output) => output.settled(timeoutMs)));
}

/** Longer lines are passed on in parts. */
const lineBytesMax = 64 * 1024;
const newline = 0x0a;

/**
 * Pass on what another process writes, in whole lines, since several write to the same descriptor. Its pipe is always read: however slow the
 * reader behind us is, that process never waits for it. Resolves when it has closed its end.
 */
export async function relay(from: ReadableStream<Uint8Array>, to: Output): Promise<void> {
  let held: Uint8Array[] = [];
  let heldBytes = 0;
  const pass = (bytes: Uint8Array) => {
    if (bytes.byteLength > 0) to.write(bytes, countLines(bytes));
  };
  try {
    for await (const bytes of from) {
      const end = bytes.lastIndexOf(newline) + 1;
      if (end > 0 || heldBytes + bytes.byteLength > lineBytesMax) {
        const whole = end > 0 ? end : bytes.byteLength;
        pass(Buffer.concat([...held, bytes.subarray(0, whole)]));
        held = [];
        heldBytes = 0;
        if (whole === bytes.byteLength) continue;
        held.push(bytes.slice(whole));
        heldBytes = bytes.byteLength - whole;
      } else {
        held.push(bytes.slice());
        heldBytes += bytes.byteLength;
      }
    }
  } catch {
    // The pipe broke with the process.
  }
  pass(Buffer.concat(held));
}

function countLines(bytes: Uint8Array): number {
  let lines = 0;
  for (let at = bytes.indexOf(newline); at >= 0; at = bytes.indexOf(newline, at + 1)) lines += 1;
  return Math.max(1, lines);
}
