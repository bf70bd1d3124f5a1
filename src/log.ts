/**
 * The log: pino's JSON lines on stdout, or one readable line for each entry when stdout is a terminal.
 * Role: used by supervisor and workers, each process with its own logger on the same stdout. No transport threads.
 */
import { writeSync } from 'node:fs';
import { isatty } from 'node:tty';
import pino, { type DestinationStream, type Logger } from 'pino';

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

export function createLog(settings: LogSettings, destination?: DestinationStream): Log {
  const fd = settings.fd ?? 1;
  const readable = settings.readable ?? isatty(fd);
  const output =
    destination ?? (readable ? { write: (line: string) => void writeSync(fd, readableLine(line)) } : pino.destination({ fd, sync: true }));
  return pino(
    {
      level: settings.level,
      base: settings.worker === undefined ? {} : { worker: settings.worker },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    output,
  );
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
