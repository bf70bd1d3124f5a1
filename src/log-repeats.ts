/**
 * Warnings and errors of one kind: the first ones are logged, the others are counted, and the count is logged when the time is over.
 * Role: asked by log.ts for every entry from `warn` on. A handler that fails for each request must not fill the disk with one stack.
 */

/** In each window, so many entries of a kind are logged. */
const windowMs = 10_000;
const entriesPerWindow = 50;
/** More kinds than that share one. */
const kindsMax = 256;
const others = 'of many kinds';

interface Kind {
  entries: number;
  /** Of them, not logged. */
  more: number;
  /** The text of the first one that was not. */
  text: string;
  /** Logs it, at the level of the last one. */
  tell: (entry: LogEntry) => void;
}

/** As pino takes it: fields, then a text. */
export type LogEntry = [fields: object, text: string];

export class LogRepeats {
  readonly #windowMs: number;
  readonly #limit: number;
  readonly #kinds = new Map<string, Kind>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(limit = entriesPerWindow, milliseconds = windowMs) {
    this.#limit = limit;
    this.#windowMs = milliseconds;
  }

  /** `args`: of one entry. `tell`: logs how many were left out, when the window ends. ret: whether to leave it out */
  isTooMany(args: readonly unknown[], tell: (entry: LogEntry) => void): boolean {
    let key = kindOf(args);
    if (!this.#kinds.has(key) && this.#kinds.size >= kindsMax) key = others;
    const kind = this.#kinds.get(key) ?? { entries: 0, more: 0, text: '', tell };
    this.#kinds.set(key, kind);
    kind.entries += 1;
    kind.tell = tell;
    this.#timer ??= this.#endLater();
    if (kind.entries <= this.#limit) return false;
    if (kind.more === 0) kind.text = textOf(args);
    kind.more += 1;
    return true;
  }

  #endLater(): ReturnType<typeof setTimeout> {
    const timer = setTimeout(() => {
      this.#timer = undefined;
      const kinds = [...this.#kinds.values()];
      this.#kinds.clear();
      for (const { more, text, tell } of kinds)
        if (more > 0) tell([{ notLogged: more }, `${more} more like this one within ${this.#windowMs / 1000} s were not logged: ${text}`]);
    }, this.#windowMs);
    timer.unref();
    return timer;
  }
}

function textOf(args: readonly unknown[]): string {
  const text = args.find((value) => typeof value === 'string');
  return typeof text === 'string' ? text.slice(0, 200) : '';
}

/** Where an error was thrown, else the text without its numbers: messages name requests and places, which are many. */
function kindOf(args: readonly unknown[]): string {
  const [fields] = args;
  const error: unknown = typeof fields === 'object' && fields !== null && 'err' in fields ? fields.err : fields;
  const stack = error instanceof Error ? error.stack : undefined;
  if (typeof stack === 'string') {
    const frame = /^\s+at .*$/m.exec(stack.slice(0, 4096))?.[0] ?? '';
    return `${(error as Error).name}${frame}`;
  }
  return textOf(args).replace(/\d+/g, '0');
}
