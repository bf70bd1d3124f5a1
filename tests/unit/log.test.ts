import { describe, expect, test } from 'bun:test';
import { createLog, readableLine } from '../../src/log.ts';

function capture(settings: Parameters<typeof createLog>[0]) {
  const lines: string[] = [];
  return { lines, log: createLog(settings, { write: (line) => void lines.push(line) }) };
}

describe('log', () => {
  test('entries are JSON lines with the name of the level and an ISO time', () => {
    const { lines, log } = capture({ level: 'info', worker: 3 });
    log.warn({ port: 80 }, 'hello');
    log.debug('not written');
    expect(lines).toHaveLength(1);
    const { time, ...entry } = JSON.parse(lines[0] ?? '');
    expect(entry).toEqual({ level: 'warn', worker: 3, port: 80, msg: 'hello' });
    expect(new Date(time).toISOString()).toBe(time);
  });

  test('a readable line shows level, worker, message, fields, and the stack of an error', () => {
    const { lines, log } = capture({ level: 'info', worker: 1 });
    log.error({ err: new TypeError('boom'), port: 80, name: 'x' }, 'failed');
    const readable = readableLine(lines[0] ?? '');
    expect(readable).toMatch(/^\d\d:\d\d:\d\d\.\d\d\d error \[worker 1\] failed port=80 name=x\nTypeError: boom\n {4}at /);
  });
});
