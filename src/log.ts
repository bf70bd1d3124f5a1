/**
 * The log: pino's JSON lines on stdout, or one readable line for each entry when stdout is a terminal.
 * Role: used by supervisor and workers, each process with its own logger. No transport threads. Down: output.ts, log-repeats.ts.
 * Logging never throws, whatever is logged, and never waits for whoever reads.
 */
import { dirname } from 'node:path';
import { isatty } from 'node:tty';
import { styleText } from 'node:util';
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
  // https://no-color.org
  const isColoured = destination === undefined && !process.env.NO_COLOR;
  const base = settings.worker === undefined ? {} : { worker: settings.worker };
  /** An entry without pino, for when an entry itself is what cannot be written. */
  const plainLine = (level: string, msg: string) => `${JSON.stringify({ level, time: new Date().toISOString(), ...base, msg })}\n`;
  const shown = (line: string) => {
    const fit =
      line.length <= lineBytesMax ? line : plainLine('warn', `an entry of ${line.length} characters: ${line.slice(0, excerptLength)}`);
    return readable ? readableLine(fit, isColoured) : fit;
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

const colours: Readonly<Record<string, 'red' | 'yellow' | 'green' | 'dim'>> = { fatal: 'red', error: 'red', warn: 'yellow', info: 'green' };

/**
 * `12:34:56.789 warn  [worker 1] message key=value` in local time, then the stack of an error on lines of its own, without frames that are ours.
 * What the message says already is not said again behind it.
 */
export function readableLine(json: string, isColoured = false): string {
  const { level, time, worker, msg, err, requestId, ...others } = JSON.parse(json) as Record<string, unknown>;
  // It joins what went wrong to other lines.
  const rest = level === 'info' || requestId === undefined ? others : { ...others, requestId };
  const paint = (style: Parameters<typeof styleText>[0], text: string) =>
    isColoured && text !== '' ? styleText(style, text, { validateStream: false }) : text;
  const at = new Date(String(time));
  const two = (value: number) => String(value).padStart(2, '0');
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`;
  const from = worker === undefined ? '' : paint('dim', `[worker ${worker}] `);
  const message = String(msg ?? '');
  const words = new Set(message.split(' '));
  const fields = Object.entries(rest)
    .map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)])
    .filter(([, value = '']) => !words.has(value))
    .map(([name, value]) => ` ${name}=${value}`);
  const stack =
    typeof err === 'object' && err !== null && 'stack' in err ? `\n${paint('dim', ownersStack(withCode(err, String(err.stack))))}` : '';
  const kind = paint(colours[String(level)] ?? 'dim', String(level).padEnd(5));
  return `${paint('dim', clock)} ${kind} ${from}${message}${paint('dim', fields.join(''))}${stack}\n`;
}

/** Behind the first line stands our code, by which docs/errors.md tells more; those of the system are in the message already. */
function withCode(err: object, stack: string): string {
  const code = 'code' in err ? String(err.code) : '';
  return code.startsWith('RW_') ? stack.replace(/$/m, () => ` (${code})`) : stack;
}

const root = dirname(import.meta.dir);

/** Of a stack, the frames that are not Ringway's nor Hono's; all of them when there are no others. */
function ownersStack(stack: string): string {
  const lines = stack.split('\n');
  const isFrame = (line: string) => /^\s+at /.test(line);
  const isInternal = (line: string) =>
    line.includes(`${root}/src/`) || line.includes('/node_modules/hono/') || /\((?:native|unknown)\b|\(unknown\)$/.test(line);
  const kept = lines.filter((line) => !isFrame(line) || !isInternal(line));
  return kept.some(isFrame) ? kept.join('\n') : stack;
}
