/**
 * The log: pino's JSON lines on stdout, or one readable line for each entry when stdout is a terminal.
 * Role: used by supervisor and workers, each process with its own logger. No transport threads. Down: output.ts, log-repeats.ts.
 * Logging never throws, whatever is logged, and never waits for whoever reads.
 */
import { isatty } from 'node:tty';
import pino, { type DestinationStream, type Logger } from 'pino';
import { LogRepeats } from './log-repeats.ts';
import { outputTo } from './output.ts';

export type Log = Logger;

export interface LogSettings {
  readonly level: string;
  /** Set in workers: which one writes. */
  readonly worker?: number;
  /** Readable lines instead of JSON. */
  readonly readable?: boolean;
  /** Where to, instead of standard output. */
  readonly fd?: 1 | 2;
}

/** Longer entries are left out, but for their beginning: an error may carry anything. */
const lineBytesMax = 64 * 1024;
const excerptLength = 512;
/** pino's number for `warn`. */
const warning = 40;

export function createLog(settings: LogSettings, destination?: DestinationStream, repeats = new LogRepeats()): Log {
  const fd = settings.fd ?? 1;
  const readable = settings.readable ?? (destination === undefined && isatty(fd));
  const base = settings.worker === undefined ? {} : { worker: settings.worker };
  /** An entry without pino, for when an entry itself is what cannot be written. */
  const plainLine = (level: string, msg: string) => `${JSON.stringify({ level, time: new Date().toISOString(), ...base, msg })}\n`;
  const shown = (line: string) => {
    const fit =
      line.length <= lineBytesMax ? line : plainLine('warn', `an entry of ${line.length} characters: ${line.slice(0, excerptLength)}`);
    return readable ? readableLine(fit) : fit;
  };
  let write: (line: string) => void;
  if (destination === undefined) {
    const output = outputTo(fd);
    output.lossLine = (lines, reason) =>
      shown(plainLine('warn', `${lines} lines of the log were lost: they could not be written (${reason})`));
    write = (line) => output.write(shown(line));
  } else {
    write = (line) => void destination.write(shown(line));
  }
  const log = pino(
    {
      level: settings.level,
      base,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      hooks: {
        logMethod(args, method, level) {
          try {
            if (level < warning || !repeats.isTooMany(args, (more) => method.apply(log, more))) method.apply(this, args);
          } catch (error) {
            // What was logged has a getter, or a toJSON, that throws.
            write(plainLine('error', `${lastText(args)} (the rest of this entry cannot be written: ${error})`));
          }
        },
      },
    },
    { write },
  );
  return log;
}

function lastText(args: readonly unknown[]): string {
  return args.findLast((value) => typeof value === 'string') as string;
}

/** `12:34:56.789 warn  [worker 1] message key=value`, then the stack of an error on lines of its own. */
export function readableLine(json: string): string {
  const { level, time, worker, msg, err, ...rest } = JSON.parse(json) as Record<string, unknown>;
  const clock = String(time).slice(11, 23);
  const from = worker === undefined ? '' : `[worker ${worker}] `;
  const fields = Object.entries(rest).map(([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const stack = typeof err === 'object' && err !== null && 'stack' in err ? `\n${err.stack}` : '';
  return `${clock} ${String(level).padEnd(5)} ${from}${msg ?? ''}${fields.join('')}${stack}\n`;
}
