/**
 * What a message costs in system calls, when nothing else is going on: each is about a fifth of what the kernel takes for a whole message.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed.
setDefaultTimeout(60_000);

/** Calls of a worker's main thread for a message that comes alone and is answered: it wakes, receives, sends, and sleeps. */
const callsMost = { io_uring: 4, epoll: 8 };
const messages = 40;
/** So long that the worker has gone to rest in between. */
const gapMs = 50;

const config = `
import { defineGateway } from 'ringway';
export default defineGateway({
  $OPTIONS,
  websocket: { '/': { pingInterval: 0, idleTimeout: 0, message(socket, message) { socket.send(message); } } },
});
`;

/** Counts by name. */
function countsOf(trace: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const line of trace.split('\n')) {
    const name = /^(\w+)\(/.exec(line)?.[1];
    if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return counts;
}

describe.skipIf(Bun.which('strace') === null)('the system calls', () => {
  forEachBackend('of a lone message', (backend) => {
    let gateway: Gateway;
    let folder: string;
    beforeAll(async () => {
      folder = mkdtempSync(join(tmpdir(), 'ringway-calls-'));
      // One file for each thread. As a parent strace may trace what other processes may not (ptrace(2), Yama).
      const wrapper = ['strace', '-ff', '-qq', '-s', '0', '-o', join(folder, 'calls')];
      gateway = await startGateway({ backend, config, wrapper });
    });
    afterAll(async () => {
      // Not strace, which would leave the gateway behind.
      if (gateway !== undefined) {
        process.kill(((await (await fetch(`${gateway.adminUrl}/healthz`)).json()) as { pid: number }).pid, 'SIGTERM');
        await gateway.exited;
      }
      await gateway?.stop();
      rmSync(folder, { recursive: true, force: true });
    });

    test(`are ${callsMost[backend]} at most`, async () => {
      const [pid] = (await gateway.workerPids()) as [number];
      const path = join(folder, `calls.${pid}`);
      expect(existsSync(path)).toBe(true);
      const wire = await Wire.open(gateway.port, '/');
      const exchange = async (count: number) => {
        for (let i = 0; i < count; i++) {
          wire.write(frame(opcode.text, 'twenty bytes of text'));
          expect(String((await wire.frame())?.payload)).toBe('twenty bytes of text');
          await Bun.sleep(gapMs);
        }
      };
      // What is compiled and loaded when it is needed first.
      await exchange(20);
      const rest = async () => {
        const before = readFileSync(path).length;
        await Bun.sleep(messages * gapMs);
        return countsOf(readFileSync(path).subarray(before).toString());
      };
      const sum = (counts: Map<string, number>) => [...counts.values()].reduce((total, count) => total + count, 0);
      const atRest = await rest();
      const before = readFileSync(path).length;
      await exchange(messages);
      const counts = countsOf(readFileSync(path).subarray(before).toString());
      const each = (sum(counts) - sum(atRest)) / messages;
      const table = [...counts].sort(([, a], [, b]) => b - a).map(([name, count]) => `${name} ${(count / messages).toFixed(2)}`);
      console.log(
        `${backend}: ${each.toFixed(2)} system calls a lone message (${table.join(', ')}); at rest ${sum(atRest)} in ${messages * gapMs} ms`,
      );
      expect(each).toBeLessThanOrEqual(callsMost[backend] + 0.5);
      expect(each).toBeGreaterThan(0.5);
      wire.destroy();
    });
  });
});
