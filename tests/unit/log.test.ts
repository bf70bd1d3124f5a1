import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import { SocketArgumentError } from '../../src/api/message.ts';
import { createLog, readableLine } from '../../src/log.ts';
import { LogRepeats } from '../../src/log-repeats.ts';

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

  test('a readable line has the code of an error of ours', () => {
    const { lines, log } = capture({ level: 'info' });
    log.error({ err: new SocketArgumentError('not a message') }, 'failed');
    log.error({ err: Object.assign(new Error('boom'), { code: 'ENOENT' }) }, 'failed');
    expect(readableLine(lines[0] ?? '')).toMatch(/Error: not a message \(RW_INVALID_ARGUMENT\)\n {4}at /);
    expect(readableLine(lines[1] ?? '')).toMatch(/Error: boom\n {4}at /);
  });

  test('a readable line has local time, says nothing twice, and shows no frames of ours', () => {
    const err = new Error('boom');
    err.stack = [
      'Error: boom',
      '    at mine (/app/gateway.config.ts:3:4)',
      `    at dispatch (${join(import.meta.dir, '../../src/core/core.ts')}:1:2)`,
    ].join('\n');
    const time = new Date(2026, 10, 29, 7, 5, 9, 42);
    const entry = { level: 'error', time, method: 'GET', path: '/x', status: 500, ms: 2, err, msg: 'GET /x 500' };
    const line = readableLine(JSON.stringify({ ...entry, err: { stack: err.stack } }));
    expect(line).toBe('07:05:09.042 error GET /x 500 ms=2\nError: boom\n    at mine (/app/gateway.config.ts:3:4)\n');
    const ours = { stack: err.stack.replace(/\n.*gateway\.config.*/, '') };
    expect(readableLine(JSON.stringify({ ...entry, err: ours }))).toContain('src/core/core.ts');
    const coloured = readableLine(JSON.stringify({ ...entry, err: { stack: err.stack } }), true);
    expect(coloured).not.toBe(line);
    expect(stripVTControlCharacters(coloured)).toBe(line);
  });

  test('whatever is logged, logging does not throw and leaves a line', () => {
    const { lines, log } = capture({ level: 'info' });
    const trap = Object.defineProperty(new Error('boom'), 'cause', {
      enumerable: true,
      get() {
        throw new Error('a trap');
      },
    });
    log.error({ err: trap }, 'a handler failed');
    log.error(
      {
        value: {
          toJSON: () => {
            throw new Error('no JSON');
          },
        },
      },
      'another',
    );
    const circle: Record<string, unknown> = {};
    circle.self = circle;
    log.error({ circle, big: 1n }, 'a third');
    expect(lines.map((line) => JSON.parse(line).msg)).toEqual([
      expect.stringContaining('a handler failed'),
      expect.stringContaining('another'),
      expect.stringContaining('a third'),
    ]);
  });

  test('an entry that is too long is told of by its beginning', () => {
    const { lines, log } = capture({ level: 'info' });
    log.error({ err: new Error('x'.repeat(1_000_000)) }, 'failed');
    expect(lines).toHaveLength(1);
    expect(lines[0]?.length).toBeLessThan(2000);
    expect(JSON.parse(lines[0] ?? '').msg).toMatch(/^an entry of \d+ characters: /);
  });

  test('errors of one kind are limited, and those left out are counted in one line; other kinds and lower levels are not', async () => {
    const lines: string[] = [];
    const log = createLog({ level: 'info' }, { write: (line) => void lines.push(line) }, new LogRepeats(3, 50));
    const fail = (path: string) => log.error({ err: new TypeError(`no ${path}`) }, `GET /${path} failed`);
    for (let count = 0; count < 10; count++) fail(`path-${count}`);
    for (let count = 0; count < 10; count++) log.info('an entry');
    log.error({ err: new RangeError('elsewhere') }, 'another failed');
    for (let count = 0; count < 5; count++) log.warn(`worker ${count} is late`);
    expect(lines.map((line) => JSON.parse(line).msg)).toEqual([
      ...[0, 1, 2].map((count) => `GET /path-${count} failed`),
      ...Array.from({ length: 10 }, () => 'an entry'),
      'another failed',
      ...[0, 1, 2].map((count) => `worker ${count} is late`),
    ]);
    lines.length = 0;
    while (lines.length < 2) await Bun.sleep(5);
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { level: 'error', notLogged: 7, msg: '7 more like this one within 0.05 s were not logged: GET /path-3 failed' },
      { level: 'warn', notLogged: 2, msg: '2 more like this one within 0.05 s were not logged: worker 3 is late' },
    ]);
    lines.length = 0;
    fail('again');
    expect(lines).toHaveLength(1);
  });
});
