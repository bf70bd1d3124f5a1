/**
 * `ringway top` on real gateways: numbers that follow the load, a live screen in a terminal that is given back, and clear ends.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { libraryPath } from '../../ffi/bindings.ts';
import { eventually } from '../support/eventually.ts';
import { type Operated, startOperated, startRingway, TerminalCommand } from '../support/ringway-command.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(60_000);

const config = `
import { defineGateway } from 'ringway';
export default defineGateway({
  $OPTIONS,
  io: { backend: 'auto' },
  fetch: () => new Response('ok'),
  websocket: { '/echo': { message: (socket, message) => void socket.send(message) } },
});
`;

interface Line {
  readonly time: string;
  readonly pid: number;
  readonly workers: readonly { readonly place: number; readonly requests: number }[];
  readonly node: { readonly requests: number; readonly websocket: number; readonly messagesIn: number; readonly bytesOut: number };
  readonly redis?: unknown;
}

const enter = '\x1b[?1049h\x1b[?25l';
const leave = '\x1b[?25h\x1b[?1049l';

/** Requests and messages until told to stop. */
function load(gateway: Operated) {
  let isOver = false;
  const requests = (async () => {
    while (!isOver) await (await fetch(gateway.url)).text();
  })();
  const socket = new WebSocket(`${gateway.wsUrl}/echo`);
  socket.addEventListener('open', () => socket.send('x'));
  socket.addEventListener('message', () => socket.send('x'));
  return async () => {
    isOver = true;
    socket.close();
    await requests;
  };
}

describe('ringway top', () => {
  let gateway: Operated;
  beforeAll(async () => {
    gateway = await startOperated({ config, workers: 2 });
  });
  afterAll(() => gateway?.stop());

  test('--once shows a table and ends', async () => {
    const { exitCode, out, err } = await gateway.run(['top', '--once', '--interval', '0.1']);
    const lines = out.split('\n');
    expect([exitCode, err, lines[0]]).toEqual([
      0,
      '',
      expect.stringMatching(new RegExp(`^ringway \\S+   process ${gateway.pid}   2 workers, the oldest up \\d\\d:`)),
    ]);
    expect(lines.slice(2).map((line) => line.slice(0, 10).trim())).toEqual(['', 'all', 'worker 0', 'worker 1', '']);
    expect(out).not.toContain('\x1b');
  });

  test('--json gives a line for each look; its numbers follow the load', async () => {
    const stop = load(gateway);
    const command = startRingway(['top', '--json', '--interval', '0.2'], { env: gateway.env });
    try {
      let output = '';
      void (async () => {
        for await (const chunk of command.stdout) output += new TextDecoder().decode(chunk);
      })();
      const lines = (): Line[] =>
        output
          .split('\n')
          .slice(0, -1)
          .map((line) => JSON.parse(line));
      await eventually('the load is seen', () =>
        lines().some(({ node }) => node.requests > 0 && node.messagesIn > 0 && node.bytesOut > 0 && node.websocket === 1),
      );
      const [busy] = lines().filter(({ node }) => node.requests > 0);
      expect([busy?.pid, busy?.workers.map(({ place }) => place)]).toEqual([gateway.pid, [0, 1]]);
      const sum = busy?.workers.reduce((total, { requests }) => total + requests, 0) ?? 0;
      expect(sum).toBeCloseTo(busy?.node.requests ?? -1, 3);
      expect(Math.abs(Date.parse(busy?.time ?? '') - Date.now())).toBeLessThan(60_000);
      await stop();
      const seen = lines().length;
      await eventually('its end is seen', () =>
        lines()
          .slice(seen)
          .some(({ node }) => node.requests === 0 && node.websocket === 0),
      );
    } finally {
      await stop();
      command.kill('SIGKILL');
      await command.exited;
    }
  });

  test('ends in silence when nobody reads any more', async () => {
    const shell = Bun.spawn(
      [
        'bash',
        '-c',
        `set -o pipefail; "$@" | head -n 2`,
        'bash',
        process.execPath,
        join(import.meta.dir, '../../src/main.ts'),
        'top',
        '--json',
        '--interval',
        '0.1',
      ],
      { env: { ...process.env, ...gateway.env, ADMIN_TOKEN: '' }, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' },
    );
    const [out, err, exitCode] = await Promise.all([shell.stdout.text(), shell.stderr.text(), shell.exited]);
    expect([out.split('\n').length, err, exitCode]).toEqual([3, '', 0]);
  });

  test('live in a terminal, until q gives it back', async () => {
    const top = new TerminalCommand(['top', '--interval', '0.1'], gateway.env, { cols: 100, rows: 12 });
    try {
      await eventually('it shows the workers', () => top.shown.includes('worker 1'));
      expect(top.shown.indexOf(enter)).toBe(0);
      // Drawn again and again, in place.
      const draws = top.shown.split('\x1b[H').length;
      await eventually('it goes on', () => top.shown.split('\x1b[H').length > draws + 2);
      const seen = top.shown.length;
      top.resize(60, 12);
      await eventually('it fits the terminal', () => top.shown.slice(seen).includes('msg out/s'));
      await eventually('only what fits is drawn, and all of it', () => {
        const last = top.shown.split('\x1b[H').at(-2) ?? '';
        return last.includes('pub/s') && last.split(/\r*\n/).every((line) => line.replace('\x1b[K', '').replace('\x1b[J', '').length <= 60);
      });
      top.press('x');
      top.press('q');
      expect(await top.end()).toBe(0);
      expect(top.shown.endsWith(leave)).toBe(true);
      expect(top.shown.split(enter).length).toBe(2);
    } finally {
      top.kill();
    }
  });

  test('Ctrl-C and SIGTERM give the terminal back too', async () => {
    for (const how of ['\x03', '\x1b', 'SIGTERM'] as const) {
      const top = new TerminalCommand(['top', '--interval', '0.1'], gateway.env, { cols: 80, rows: 10 });
      try {
        await eventually('it shows the workers', () => top.shown.includes('worker 1'));
        if (how === 'SIGTERM') top.terminate();
        else top.press(how);
        expect([how, await top.end(), top.shown.endsWith(leave)]).toEqual([how, 0, true]);
      } finally {
        top.kill();
      }
    }
  });

  test('other processes, and words of no sense, are refused', async () => {
    const refusals: [words: string[], exitCode: number, message: string][] = [
      [['--pid', String(process.pid)], 1, `process ${process.pid} is no supervisor of a gateway`],
      [['--pid', '4194305'], 1, 'there is no process 4194305 (any more)'],
      [['--pid', '0'], 64, "--pid is '0'; write the process id of a supervisor"],
      [['--pid', 'all'], 64, "--pid is 'all'; write the process id of a supervisor"],
      [['--interval', '0'], 64, "--interval is '0'; write seconds from 0.1 to 3600"],
      [['--interval', 'x'], 64, "--interval is 'x'; write seconds from 0.1 to 3600"],
    ];
    for (const [words, exitCode, message] of refusals)
      expect([words, await gateway.run(['top', '--once', ...words])]).toEqual([words, { exitCode, out: '', err: `ringway: ${message}\n` }]);
  });
});

describe('the end of what is looked at', () => {
  test('a gateway that ends, or is killed, ends it with a message', async () => {
    for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
      const gateway = await startOperated({ config });
      const top = new TerminalCommand(['top', '--interval', '0.1'], gateway.env, { cols: 100, rows: 12 });
      try {
        await eventually('it shows the worker', () => top.shown.includes('worker 0'));
        gateway.kill(signal);
        expect(await top.end()).toBe(1);
        const [, after = ''] = top.shown.split(leave);
        expect(after.trim()).toBe(`ringway: the gateway (process ${gateway.pid}) has ended`);
      } finally {
        top.kill();
        await gateway.stop();
      }
    }
  });

  test('a process that has ended and was not waited for yet counts as ended', async () => {
    // Its parent never asks how it ended.
    const gateway = await startOperated({ config, wrapper: ['bash', '-c', '"$@" & echo "child $!" >&2; exec sleep 1000', 'bash'] });
    try {
      const pid = Number((JSON.parse((await gateway.run(['health'])).out) as { pid: number }).pid);
      const top = startRingway(['top', '--json', '--interval', '0.1'], { env: gateway.env });
      const lines = top.stdout.getReader();
      await lines.read();
      process.kill(pid, 'SIGKILL');
      lines.releaseLock();
      const [err, exitCode] = await Promise.all([top.stderr.text(), top.exited]);
      expect([exitCode, err]).toEqual([1, `ringway: the gateway (process ${pid}) has ended\n`]);
      const again = await gateway.run(['top', '--once', '--pid', String(pid)]);
      expect([again.exitCode, again.err]).toEqual([1, expect.stringContaining(`ringway: `)]);
    } finally {
      await gateway.stop();
    }
  });

  test('after a reload it goes on with the new workers', async () => {
    const gateway = await startOperated({ config });
    const top = new TerminalCommand(['top', '--interval', '0.1'], gateway.env, { cols: 100, rows: 12 });
    try {
      await eventually('it shows the worker', () => top.shown.includes('worker 0'));
      expect((await gateway.post('/reload', '')).status).toBe(200);
      await eventually('it shows the new worker alone', () => {
        const last = top.shown.split('\x1b[H').at(-2) ?? '';
        return last.includes('1 worker,') && !last.includes('worker 0 ') && /worker [1-9]/.test(last);
      });
      top.press('q');
      expect(await top.end()).toBe(0);
    } finally {
      top.kill();
      await gateway.stop();
    }
  });

  test('after an upgrade it follows to the supervisor that leads now', async () => {
    const product = mkdtempSync(join(tmpdir(), 'ringway-top-'));
    const root = join(import.meta.dir, '../..');
    const isKept = (path: string) => path !== join(root, 'ffi/build');
    for (const part of ['src', 'package.json', 'ffi']) cpSync(join(root, part), join(product, part), { recursive: true, filter: isKept });
    symlinkSync(join(root, 'node_modules'), join(product, 'node_modules'));
    cpSync(libraryPath, join(product, 'ffi/build/libringway.so'));
    const gateway = await startOperated({ config, product });
    const top = startRingway(['top', '--json', '--interval', '0.1'], { env: gateway.env });
    try {
      let output = '';
      void (async () => {
        for await (const chunk of top.stdout) output += new TextDecoder().decode(chunk);
      })();
      await eventually('it looks at the first', () => output.includes(`"pid":${gateway.pid},`));
      const manifest = readFileSync(join(product, 'package.json'), 'utf8');
      writeFileSync(join(product, 'package.json'), manifest.replace(/"version": "[^"]*"/, '"version": "99.0.0"'));
      expect((await gateway.post('/reload', '')).status).toBe(200);
      const last = await eventually('it looks at another', () => {
        const line = output.split('\n').at(-2) ?? '{}';
        const shown = JSON.parse(line) as Partial<Line>;
        return shown.pid !== gateway.pid && shown.workers?.length === 1 ? shown : undefined;
      });
      expect((await (await fetch(`${gateway.adminUrl}/healthz`)).json()) as object).toMatchObject({ pid: last.pid, version: '99.0.0' });
    } finally {
      top.kill('SIGKILL');
      await top.exited;
      await gateway.stop();
      rmSync(product, { recursive: true, force: true });
    }
  });
});
