import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { native, SystemError } from '../../../ffi/bindings.ts';
import { commandFlag, noSlot } from '../../../ffi/layout.ts';
import { sendBinary, sendText } from '../../../src/api/message.ts';
import type { BackendName, BehaviorOptions } from '../../../src/core/core.ts';
import type { LogLimits, Position } from '../../../src/core/log-commands.ts';
import { presenceTopic } from '../../../src/core/presence-commands.ts';
import { hostLayout, statIndex } from '../../../src/core/stat-index.ts';
import { backends, LiveCore } from '../../support/live-core.ts';
import type { Wire } from '../../support/wire.ts';

const limits: LogLimits = { size: 100, seconds: 300 };
const workers = 2;

let shmFd: number;
let lives: LiveCore[];

function start(
  backend: BackendName,
  options: { readonly behavior?: Partial<BehaviorOptions>; readonly followsLogs?: boolean } = {},
): LiveCore {
  const place = { shmFd, workerIndex: lives.length, workerCount: workers, followsLogs: options.followsLogs === true };
  const live = new LiveCore(backend, { behavior: options.behavior ?? {}, core: place });
  lives.push(live);
  return live;
}

/** Everybody turns until `check` holds. */
async function together(what: string, check: () => boolean): Promise<void> {
  await (lives[0] as LiveCore).until(what, () => {
    for (const live of lives) live.turn();
    return check();
  });
}

async function texts(wire: Wire, count: number): Promise<string[]> {
  const got: string[] = [];
  let failed: unknown;
  const take = async () => {
    while (got.length < count) got.push((await wire.frame())?.payload.toString() ?? 'the end');
  };
  take().catch((error) => {
    failed = error;
  });
  await together('the frames', () => failed !== undefined || got.length === count);
  if (failed !== undefined) throw failed;
  return got;
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

beforeEach(() => {
  shmFd = native.shmCreate(workers, 65536, hostLayout, 16 << 20);
  lives = [];
});
afterEach(() => {
  for (const live of lives) live.destroy();
  native.fdClose(shmFd);
});

describe.each([...backends])('logs of topics over %s', (backend) => {
  test('a message has a position, which whoever appends learns and whoever asks for it hears', async () => {
    const a = start(backend);
    const b = start(backend, { behavior: { positions: true } });
    const raw = await a.open();
    const told = await b.open();
    for (const [live, { socket }] of [[a, raw] as const, [b, told] as const]) {
      const attached = live.core.attach(socket.slot, socket.generation, 'chat/1', {});
      expect(attached).toMatchObject({ kind: 'attached', recovered: false, offset: 0, sent: 0 });
    }
    const first = a.core.logAppend('chat/1', sendText, 'héllo', limits);
    const second = b.core.logAppend('chat/1', sendBinary, new Uint8Array([0, 1]), limits);
    expect(first).toMatchObject({ offset: 1, isDuplicate: false });
    expect(second).toMatchObject({ offset: 2, isDuplicate: false });
    const { epoch } = first as Position;
    expect(epoch).toMatch(/^[0-9a-f]{16}$/);
    expect(await texts(raw.wire, 2)).toEqual(['héllo', '\0\x01']);
    expect((await texts(told.wire, 2)).map((line) => JSON.parse(line))).toEqual([
      { topic: 'chat/1', epoch, offset: 1, data: 'héllo' },
      { topic: 'chat/1', epoch, offset: 2, base64: 'AAE=' },
    ]);
    expect(a.core.logEnd('chat/1')).toEqual({ epoch, first: 1, offset: 2, isFollowed: false });
    expect(a.core.logEnd('chat/2')).toBeUndefined();
  });

  test('the same key is the same message', () => {
    const { core } = start(backend);
    const first = core.logAppend('chat', sendText, 'once', limits, { key: 'a key', keySeconds: 10 }) as Position;
    expect(core.logAppend('chat', sendText, 'again', limits, { key: 'a key' })).toEqual({ ...first, offset: 1, isDuplicate: true });
    expect(core.logAppend('chat', sendText, 'other', limits, { key: 'another' })).toMatchObject({ offset: 2, isDuplicate: false });
    expect(core.logRead('chat', { limit: 9 })?.entries.map(({ payload }) => text(payload))).toEqual(['once', 'other']);
  });

  test('who publishes does not get it, nor does who is named from another worker', async () => {
    const a = start(backend);
    const b = start(backend);
    const one = await a.open();
    const two = await b.open();
    for (const [live, { socket }] of [[a, one] as const, [b, two] as const]) live.core.attach(socket.slot, socket.generation, 'chat', {});
    a.core.logAppend('chat', sendText, 'not to one', limits, { exceptSlot: one.socket.slot, exceptGeneration: one.socket.generation });
    const origin = { worker: 1, epoch: b.core.epoch, slot: two.socket.slot, generation: two.socket.generation };
    a.core.logAppend('chat', sendText, 'not to two', limits, { origin });
    a.core.logAppend('chat', sendText, 'not to whom it was', limits, { origin: { ...origin, epoch: origin.epoch - 2 } });
    a.core.logAppend('chat', sendText, 'to all', limits, { exceptSlot: noSlot });
    expect(await texts(one.wire, 3)).toEqual(['not to two', 'not to whom it was', 'to all']);
    expect(await texts(two.wire, 3)).toEqual(['not to one', 'not to whom it was', 'to all']);
  });

  test('who comes back with a position gets what it has missed, and then what comes', async () => {
    const a = start(backend);
    const b = start(backend);
    const positions = ['1', '2', '3'].map((line) => a.core.logAppend('chat', sendText, line, limits) as Position);
    const { wire, socket } = await b.open();
    const since = positions[0] as Position;
    const attached = b.core.attach(socket.slot, socket.generation, 'chat', { since });
    expect(attached).toEqual({ kind: 'attached', recovered: true, epoch: since.epoch, offset: 3, sent: 2 });
    a.core.logAppend('chat', sendText, '4', limits);
    expect(await texts(wire, 3)).toEqual(['2', '3', '4']);
    expect(b.core.attach(socket.slot, socket.generation, 'chat', { since })).toMatchObject({ recovered: false, offset: 4, sent: 0 });
    expect(b.core.attach(socket.slot, socket.generation + 1, 'chat', {})).toEqual({ kind: 'closed' });
    expect(b.core.isSubscribed(socket.slot, socket.generation, 'chat')).toBe(true);
    for (const wrong of [
      { ...since, offset: 99 },
      { ...since, offset: 2 ** 53 - 1 },
      { epoch: '00000000000000ff', offset: 1 },
    ]) {
      const other = await b.open();
      expect(b.core.attach(other.socket.slot, other.socket.generation, 'chat', { since: wrong })).toMatchObject({
        recovered: false,
        offset: 4,
        sent: 0,
      });
    }
    expect(b.core.readStat(statIndex('topic_attaches_lost'))).toBe(3);
  });

  test('past its limit of topics a connection is attached to no more, and it is said', async () => {
    const live = start(backend);
    const told: string[] = [];
    live.core.onTopicsFull = (whose, most) => told.push(`${whose} ${most}`);
    const { socket } = await live.open();
    for (let at = 0; at < 1000; at++) expect(live.core.attach(socket.slot, socket.generation, `t${at}`, {}).kind).toBe('attached');
    expect(live.core.attach(socket.slot, socket.generation, 'one more', {})).toEqual({ kind: 'full' });
    expect(told).toEqual(['socket 1000']);
    expect(live.core.attach(socket.slot, socket.generation, 't1', {}).kind).toBe('attached');
  });

  test('a copy of another store is attached to when it is followed, and what lies before it is fed', async () => {
    const a = start(backend, { followsLogs: true, behavior: { positions: true } });
    const b = start(backend, { followsLogs: true });
    const { wire, socket } = await a.open();
    const { slot, generation } = socket;
    const epoch = 'c0ffee0000c0ffee';
    const at = (offset: number): Position => ({ epoch, offset });
    expect(a.core.attach(slot, generation, 'chat', {})).toEqual({ kind: 'unfollowed' });
    expect(a.core.logPut('chat', at(41), sendText, '41', limits)).toBe('epoch');
    expect(a.core.logFollow('chat', true)).toBe(false);
    b.core.logReset('chat', at(2 ** 40), false);
    expect(a.core.attach(slot, generation, 'chat', {})).toEqual({ kind: 'unfollowed' });
    b.core.logReset('chat', at(40), true);
    expect(a.core.logPut('chat', at(42), sendText, '42', limits)).toBe('gap');
    expect(a.core.logPut('chat', at(41), sendText, '41', limits, { timeMs: Date.now() - 1000 })).toBe('taken');
    expect(b.core.logPut('chat', at(41), sendText, '41', limits)).toBe('old');
    expect(a.core.attach(slot, generation, 'chat', { since: at(38) })).toEqual({ kind: 'behind' });
    for (const offset of [39, 40]) expect(a.core.sendLogged(slot, generation, 'chat', at(offset), sendText, `${offset}`)).toBe('sent');
    b.core.logPut('chat', at(42), sendText, '42', limits);
    expect(a.core.attach(slot, generation, 'chat', { since: at(40) })).toMatchObject({ recovered: true });
    b.core.logPut('chat', at(43), sendText, '43', limits);
    const heard = (await texts(wire, 5)).map((line) => JSON.parse(line));
    expect(heard).toEqual([39, 40, 41, 42, 43].map((offset) => ({ topic: 'chat', epoch, offset, data: `${offset}` })));
    b.core.logReset('chat', at(50), true);
    expect(JSON.parse((await texts(wire, 1))[0] as string)).toEqual({ topic: 'chat', epoch, offset: 50, lost: true });
    expect(a.core.sendLogged(slot, generation + 1, 'chat', at(1), sendText, 'x')).toBe('closed');
    expect(a.core.sendLogged(slot, generation, 'news', undefined, sendText, 'no position')).toBe('sent');
    expect(await texts(wire, 1)).toEqual(['{"topic":"news","data":"no position"}']);
  });

  test('this process hears topics that it holds: direct ones, and logs without loss', async () => {
    const a = start(backend);
    const b = start(backend);
    const heard: string[] = [];
    b.core.onTopicMessage = (topic, flags, payload, position, lost) =>
      heard.push(`${text(topic)} ${flags} ${payload.length > 99 ? payload.length : text(payload)} ${position?.offset} ${lost}`);
    expect(b.core.hold('chat')).toBe(true);
    a.core.publish('chat', sendText, 'direct');
    await together('the direct one', () => heard.length === 1);
    a.core.logAppend('chat', sendText, 'one', { size: 2, seconds: 60 });
    a.core.logAppend('chat', sendBinary, new Uint8Array(100_000), { size: 2, seconds: 60 });
    await together('those of the log', () => heard.length === 3);
    const { epoch } = a.core.logEnd('chat') as Position;
    b.core.release('chat');
    for (let at = 0; at < 3; at++) a.core.logAppend('chat', sendText, `${at}`, { size: 2, seconds: 60 });
    expect(b.core.hold('chat', { epoch, offset: 2 })).toBe(true);
    await together('what was missed', () => heard.length === 6);
    expect(heard).toEqual([
      `chat ${sendText} direct undefined false`,
      `chat ${sendText} one 1 false`,
      `chat ${sendBinary} 100000 2 false`,
      'chat 0  3 true',
      `chat ${sendText} 1 4 false`,
      `chat ${sendText} 2 5 false`,
    ]);
    b.core.release('chat');
    b.core.release('chat');
    b.core.release('');
  });

  test('joins and leaves come with their kind', async () => {
    const { core } = start(backend);
    const heard: string[] = [];
    core.onTopicMessage = (topic, flags, payload) => heard.push(`${JSON.stringify(text(topic))} ${flags} ${payload.byteLength}`);
    core.hold(presenceTopic('chat'));
    core.logAppend(presenceTopic('chat'), commandFlag.entryJoin, '\x03\0ann', limits);
    core.logAppend(presenceTopic('chat'), commandFlag.entryLeave, '\x03\0ann', limits);
    await together('both', () => heard.length === 2);
    expect(heard).toEqual([`"\\u0000pchat" ${commandFlag.entryJoin} 5`, `"\\u0000pchat" ${commandFlag.entryLeave} 5`]);
    core.release(presenceTopic('chat'));
  });

  test('who hears raw messages and has missed some is told of beside', async () => {
    const a = start(backend);
    const { socket } = await a.open();
    const told: string[] = [];
    a.websocket.onLost = (slot, generation, topic, position) => told.push(`${slot} ${generation} ${text(topic)} ${position.offset}`);
    const attached = a.core.attach(socket.slot, socket.generation, 'chat', {});
    if (attached.kind !== 'attached') throw new Error(attached.kind);
    a.core.logReset('chat', { epoch: attached.epoch, offset: 7 }, false);
    await together('it is told', () => told.length === 1);
    expect(told).toEqual([`${socket.slot} ${socket.generation} chat 7`]);
  });

  test('a log is read forwards and backwards, in pieces and large ones', () => {
    const { core } = start(backend);
    const line = (at: number) => `${at}`.repeat(50);
    for (let at = 1; at <= 2000; at++) core.logAppend('chat', sendText, line(at), { size: 1500, seconds: 60 });
    const all = core.logRead('chat', { limit: 5000 });
    expect(all?.end).toMatchObject({ first: 501, offset: 2000 });
    expect(all?.entries.map(({ offset }) => offset)).toEqual(Array.from({ length: 1500 }, (_, at) => at + 501));
    expect(all?.entries.every(({ offset, payload }) => text(payload) === line(offset))).toBe(true);
    const { epoch } = core.logEnd('chat') as Position;
    const offsets = (query: Parameters<typeof core.logRead>[1]) => core.logRead('chat', query)?.entries.map(({ offset }) => offset);
    expect(offsets({ epoch, after: 1997, limit: 10 })).toEqual([1998, 1999, 2000]);
    expect(offsets({ epoch, after: 503, limit: 10, reverse: true })).toEqual([502, 501]);
    expect(offsets({ limit: 2, reverse: true })).toEqual([2000, 1999]);
    expect(offsets({ epoch: '00000000000000ff', limit: 10 })).toEqual([]);
    const before = Date.now();
    core.logAppend('large', sendBinary, new Uint8Array(300_000).fill(7), limits);
    const [entry] = core.logRead('large', { limit: 3 })?.entries ?? [];
    expect(entry?.payload.byteLength).toBe(300_000);
    expect(entry?.payload.every((byte) => byte === 7)).toBe(true);
    expect(Math.abs((entry?.timeMs ?? 0) - before)).toBeLessThan(10_000);
    expect(core.logRead('none', { limit: 3 })).toBeUndefined();
    expect(core.logRead('', { limit: 3 })).toBeUndefined();
  });

  test('members and names of topics are those of connections here', async () => {
    const live = start(backend);
    const one = await live.open();
    const two = await live.open();
    for (const { socket } of [one, two]) live.core.subscribe(socket.slot, socket.generation, 'chat/1');
    live.core.subscribe(one.socket.slot, one.socket.generation, 'chat/2');
    live.core.hold('chat/held');
    expect(live.core.membersOf('chat/1')).toEqual([one, two].map(({ socket: { slot, generation } }) => ({ slot, generation })));
    expect(live.core.membersOf('chat/3')).toEqual([]);
    expect(live.core.topicNames('chat/').map(text).sort()).toEqual(['chat/1', 'chat/2']);
    expect(live.core.topicNames('', 1)).toHaveLength(1);
    for (let at = 0; at < 900; at++) live.core.subscribe(one.socket.slot, one.socket.generation, `long/${'x'.repeat(200)}${at}`);
    expect(new Set(live.core.topicNames('long/').map(text)).size).toBe(900);
    live.core.release('chat/held');
  });

  test('without memory for logs it is said what is missing', async () => {
    const live = new LiveCore(backend);
    try {
      const { socket } = await live.open();
      const failure = expect.objectContaining({ code: 'RW_ERR_UNSUPPORTED' });
      expect(() => live.core.logAppend('chat', sendText, 'x', limits)).toThrow(failure);
      expect(() => live.core.logRead('chat', { limit: 1 })).toThrow(failure);
      expect(() => live.core.attach(socket.slot, socket.generation, 'chat', {})).toThrow(failure);
      expect(() => live.core.hold('x'.repeat(1025))).toThrow(SystemError);
    } finally {
      live.destroy();
    }
  });
});
