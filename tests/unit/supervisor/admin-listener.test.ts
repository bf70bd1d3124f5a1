import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import type { AdminSettings } from '../../../src/config/resolve.ts';
import { createLog } from '../../../src/log.ts';
import type { AdminView } from '../../../src/supervisor/admin.ts';
import { AdminListener } from '../../../src/supervisor/admin-listener.ts';

const token = 'of-the-tests-and-of-nothing-else';
const view = {
  metrics: async () => new Registry(),
  notReady: () => undefined,
  health: () => ({ status: 'ok' }),
  perform: async () => [{ answer: {} }],
} as unknown as AdminView;

let folder: string;
let listeners: AdminListener[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'ringway-admin-'));
  listeners = [];
});
afterEach(() => {
  for (const listener of listeners) listener.stop();
  rmSync(folder, { recursive: true });
});

function listener(): AdminListener {
  const made = new AdminListener(view, createLog({ level: 'silent' }));
  listeners.push(made);
  return made;
}
const tcp = (port: number, host = '127.0.0.1'): AdminSettings => ({ kind: 'tcp', host, port, token });
const unix = (name: string): AdminSettings => ({ kind: 'unix', path: join(folder, name), token });
async function opened(settings: AdminSettings): Promise<AdminListener> {
  const made = listener();
  await made.open(settings);
  return made;
}
/** As it stands in the label. */
const portOf = (made: AdminListener) => Number(/\d+$/.exec(made.label ?? '')?.[0]);
const answers = async (made: AdminListener) =>
  made.label?.startsWith('unix:')
    ? (await fetch('http://localhost/readyz', { unix: made.label.slice('unix:'.length) })).status
    : (await fetch(`${made.label}/readyz`)).status;
async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await what())) await Bun.sleep(5);
}

describe('the admin listener', () => {
  test('stays where it is when the next config says the same', async () => {
    const one = await opened(tcp(0));
    const { label } = one;
    (await one.prepare(tcp(0))).commit();
    expect([one.label, await answers(one)]).toEqual([label, 200]);
  });

  test('is at the next address and, until that is certain, at none but the present one', async () => {
    const one = await opened(unix('a'));
    const change = await one.prepare(unix('b'));
    expect([one.label, existsSync(join(folder, 'b'))]).toEqual([`unix:${join(folder, 'a')}`, true]);
    change.abandon();
    expect([await answers(one), existsSync(join(folder, 'b'))]).toEqual([200, false]);
    (await one.prepare(unix('b'))).commit();
    expect([one.label, await answers(one)]).toEqual([`unix:${join(folder, 'b')}`, 200]);
    expect(existsSync(join(folder, 'a'))).toBe(true);
    one.stop();
    expect([existsSync(join(folder, 'a')), existsSync(join(folder, 'b'))]).toEqual([false, false]);
  });

  test('can come and go', async () => {
    const one = listener();
    await one.open(false);
    expect([one.label, one.post]).toEqual([undefined, null]);
    (await one.prepare(tcp(0))).commit();
    expect(await answers(one)).toBe(200);
    (await one.prepare(false)).commit();
    expect([one.label, one.post]).toEqual([undefined, null]);
  });

  test('takes another token at the same address', async () => {
    const one = await opened(unix('a'));
    const publish = async (shown: string) => {
      const headers = { authorization: `Bearer ${shown}`, 'content-type': 'image/png' };
      return fetch('http://localhost/publish', { method: 'POST', headers, unix: join(folder, 'a') }).then(
        ({ status }) => status,
        () => undefined,
      );
    };
    expect([await publish(token), await publish(`${token}-2`)]).toEqual([415, 401]);
    (await one.prepare({ ...unix('a'), token: `${token}-2` })).commit();
    await until(async () => (await publish(`${token}-2`)) === 415);
    expect(await publish(token)).toBe(401);
  });

  test('moves between addresses that cannot be had at once', async () => {
    const one = await opened(tcp(0));
    const port = portOf(one);
    // The port that the system has chosen, said by number, is the same place.
    (await one.prepare(tcp(port))).commit();
    expect([portOf(one), await answers(one)]).toEqual([port, 200]);
    (await one.prepare(tcp(port, '0.0.0.0'))).abandon();
    expect(one.label).toBe(`http://127.0.0.1:${port}`);
    (await one.prepare(tcp(port, '0.0.0.0'))).commit();
    await until(() => one.label === `http://localhost:${port}`);
    expect(await answers(one)).toBe(200);
  });

  test('refuses an address that is taken, and stays', async () => {
    const [one, other] = [await opened(tcp(0)), await opened(tcp(0))];
    await expect(one.prepare(tcp(portOf(other)))).rejects.toThrow(`cannot listen on 127.0.0.1:${portOf(other)}`);
    expect(await answers(one)).toBe(200);
  });

  test('waits for an address that another process is about to leave, with the port that was chosen for that', async () => {
    const before = await opened(tcp(0));
    const { post } = before;
    expect(post).toEqual({ address: { kind: 'tcp', host: '127.0.0.1', port: 0 }, port: portOf(before) });
    const next = listener();
    const opening = next.openPatiently(tcp(0), post?.port ?? undefined);
    await Bun.sleep(50);
    expect(next.label).toBeUndefined();
    before.stop();
    await opening;
    expect(portOf(next)).toBe(post?.port ?? 0);
    // For the next reload it is where the config says: nothing moves.
    const { label } = next;
    (await next.prepare(tcp(0))).commit();
    expect(next.label).toBe(label);
  });

  test('waits no longer once it is stopped', async () => {
    const before = await opened(unix('a'));
    const next = listener();
    const opening = next.openPatiently(unix('a'));
    await Bun.sleep(20);
    next.stop();
    await opening;
    expect([next.label, await answers(before)]).toEqual([undefined, 200]);
  });
});
