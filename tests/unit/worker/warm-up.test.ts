import { expect, test } from 'bun:test';
import { readdirSync, readlinkSync } from 'node:fs';
import { Core } from '../../../src/core/core.ts';
import { native } from '../../../src/core/native.ts';
import { statIndex } from '../../../src/core/stat-index.ts';
import { warmUp } from '../../../src/worker/warm-up.ts';

/** What this process holds open of the kinds that a core makes. */
function held(): string[] {
  const open: string[] = [];
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      if (/^(socket:|anon_inode:)/.test(target)) open.push(`${fd} ${target}`);
    } catch {
      // The one that the folder was read through.
    }
  }
  return open;
}

test('a warm-up serves messages and requests, and leaves nothing open', async () => {
  // Bun opens what its own loop needs at the first time.
  await warmUp(30_000);
  const before = held();
  expect(await warmUp(30_000)).toEqual({ messages: 300, requests: 150 });
  expect(held()).toEqual(before);
});

test('a warm-up that takes too long is given up', async () => {
  const { messages, requests } = await warmUp(0);
  expect(messages + requests).toBeLessThan(450);
});

test('a warm-up does not count as connections and requests of a core beside it', async () => {
  const wakeFd = native.eventfdCreate();
  const core = new Core({ backend: 'epoll', wakeFd, inboxFdFirst: -1, shmFd: -1, workerIndex: 0, workerCount: 1, numbers: {} });
  await warmUp(30_000);
  const counters = ['accepts', 'requests', 'ws_messages_in', 'turns'] as const;
  expect(counters.map((name) => core.readStat(statIndex(name)))).toEqual([0, 0, 0, 0]);
  core.destroy();
  native.fdClose(wakeFd);
});
