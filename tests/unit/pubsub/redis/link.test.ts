import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { resolveRedis } from '../../../../src/config/redis.ts';
import { createLog } from '../../../../src/log.ts';
import { addressText } from '../../../../src/pubsub/redis/connection.ts';
import { Failures, LinkError } from '../../../../src/pubsub/redis/failure.ts';
import { LinkLog } from '../../../../src/pubsub/redis/link-log.ts';
import { Retry } from '../../../../src/pubsub/redis/retry.ts';
import { parseSlots } from '../../../../src/pubsub/redis/topology.ts';

function failuresOf(redis: Parameters<typeof resolveRedis>[0]): Failures {
  const settings = resolveRedis(redis, undefined, '/', (path, text) => {
    throw new Error(`${path.join('.')} ${text}`);
  });
  if (settings === false) throw new Error('no Redis');
  return new Failures(settings);
}

function reply(message: string): Error {
  const error = new Error(message);
  error.name = 'ReplyError';
  return error;
}

describe('failures', () => {
  const standalone = failuresOf('redis://user:s3cret-password@127.0.0.1:6379');
  const cluster = failuresOf({ cluster: ['redis://127.0.0.1:6379'], prefix: 'shop' });

  test.each([
    ['WRONGPASS invalid username-password pair or user is disabled.', 'refused', 'redis.username and redis.password'],
    ['NOAUTH Authentication required.', 'refused', 'set redis.password'],
    ["NOPERM this user has no permissions to run the 'publish' command", 'refused', '+publish +subscribe +unsubscribe &ringway:*'],
    ['DENIED Redis is running in protected mode because…', 'refused', 'protected mode'],
    ['ERR This instance has cluster support disabled', 'refused', 'redis.url instead of redis.cluster'],
    ["ERR unknown command 'SSUBSCRIBE', with args beginning with: 'x' ", 'refused', 'Redis 7'],
    ["ERR unknown command 'publish', with args beginning with: 'x' ", 'refused', 'PUBLISH, SUBSCRIBE and UNSUBSCRIBE by these names'],
    ['ERR unknown command `SUBSCRIBE`, with args beginning with: `x`, ', 'refused', 'renamed or taken away there (rename-command)'],
    ["ERR unsupported command 'publish'", 'refused', 'renamed or taken away'],
    ['ERR command not allowed', 'refused', 'renamed or taken away'],
    ['ERR invalid password', 'refused', 'redis.password'],
    ['MOVED 3999 127.0.0.1:6381', 'refused', 'redis.cluster instead of redis.url'],
    ['CLUSTERDOWN The cluster is down', 'later', 'CLUSTERDOWN'],
    ['LOADING Redis is loading the dataset in memory', 'later', 'LOADING'],
    ['ERR max number of clients reached', 'later', 'max number'],
    ['ERR Protocol error: invalid bulk length', 'rejected', 'invalid bulk length'],
  ] as const)('%s', (message, kind, words) => {
    const failure = standalone.of(reply(message));
    expect(failure).toMatchObject({ kind, isAnswer: true });
    expect(failure.text).toContain(words);
  });

  test.each([
    ['ECONNREFUSED', 'connect ECONNREFUSED 127.0.0.1:6379', 'gone', 'ECONNREFUSED'],
    ['ERR_TLS_CERT_ALTNAME_INVALID', "Hostname/IP does not match certificate's altnames", 'refused', 'redis.tls.serverName'],
    ['DEPTH_ZERO_SELF_SIGNED_CERT', 'self signed certificate', 'refused', 'redis.tls.ca'],
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'unable to verify the first certificate', 'refused', 'redis.tls.ca'],
    ['CERT_HAS_EXPIRED', 'certificate has expired', 'refused', 'dates'],
  ] as const)('%s', (code, message, kind, words) => {
    const failure = standalone.of(Object.assign(new Error(message), { code }));
    expect(failure.kind).toBe(kind);
    expect(failure.text).toContain(words);
    expect(failure.isAnswer).toBeUndefined();
  });

  test('only a Cluster moves', () => {
    for (const code of ['MOVED 3999 127.0.0.1:6381', 'ASK 3999 127.0.0.1:6381', 'TRYAGAIN …']) {
      expect(cluster.of(reply(code))).toEqual({ kind: 'moved', text: code, isAnswer: true });
    }
  });

  test('the rights that a Cluster needs are named for it, with its prefix', () => {
    const { text } = cluster.of(reply("NOPERM this user has no permissions to run the 'ssubscribe' command"));
    expect(text).toContain('+spublish +ssubscribe +sunsubscribe +cluster|slots &shop:*');
  });

  test('the commands that a Cluster needs are named for it', () => {
    expect(cluster.of(reply("ERR unknown command 'cluster'")).text).toContain(
      'SPUBLISH, SSUBSCRIBE, SUNSUBSCRIBE and CLUSTER by these names',
    );
  });

  test('no text holds a password, whatever Redis repeats', () => {
    const said = [
      reply('ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `user`, `s3cret-password`, '),
      reply('ERR s3cret-password is no good'),
      new Error('cannot connect to redis://user:s3cret-password@127.0.0.1'),
      's3cret-password',
    ];
    for (const error of said) expect(standalone.of(error).text).not.toContain('s3cret-password');
  });

  test('anything that is thrown becomes a failure', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.anything()), (value) => {
        expect(standalone.of(value).text).toBeString();
        expect(standalone.of(reply(String(fc.stringify(value)))).text.length).toBeLessThan(700);
      }),
    );
    expect(standalone.of(new LinkError({ kind: 'later', text: 'known' }))).toEqual({ kind: 'later', text: 'known' });
  });
});

describe('retry', () => {
  test('waits a random part of a time that doubles up to a bound, and begins anew when it has worked', () => {
    const longest = new Retry(() => 1);
    const waits = Array.from({ length: 8 }, () => longest.next(false));
    expect(waits).toEqual([50, 100, 200, 400, 700, 700, 700, 700]);
    longest.forgive();
    expect(longest.next(false)).toBe(50);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.boolean()), { minLength: 1, maxLength: 60 }),
        (draws) => {
          let draw = 0;
          const retry = new Retry(() => draw);
          for (const [value, isRefused] of draws) {
            draw = value;
            const wait = retry.next(isRefused);
            expect(wait).toBeGreaterThanOrEqual(isRefused ? 2500 : 0);
            expect(wait).toBeLessThanOrEqual(isRefused ? 5000 : 700);
          }
        },
      ),
    );
  });

  test('knows when those that failed in the same moment have tried again', () => {
    const retry = new Retry(() => 0.5);
    expect(retry.othersMs).toBe(0);
    retry.next(false);
    expect(retry.othersMs).toBe(350);
    for (let i = 0; i < 10; i++) retry.next(false);
    expect(retry.othersMs).toBe(1000);
  });
});

describe('slots', () => {
  const primary = (port: number) => ['10.0.0.1', port, 'id', []];

  test('each slot is with the primary of its range', () => {
    const owners = parseSlots(
      [
        [0, 99, primary(1), primary(4)],
        [200, 16383, primary(2)],
        [100, 150, primary(1)],
      ],
      'asked',
    );
    const portOf = (slot: number) => owners.ownerOf(slot)?.port;
    expect([0, 99, 100, 150, 151, 199, 200, 16383].map(portOf)).toEqual([1, 1, 1, 1, undefined, undefined, 2, 2]);
    expect(owners.addresses.map(addressText)).toEqual(['10.0.0.1:1', '10.0.0.1:2']);
  });

  test('a server without a name is the one that was asked', () => {
    for (const host of ['', null, '?']) expect(parseSlots([[0, 5, [host, 7]]], 'asked').ownerOf(3)).toEqual({ host: 'asked', port: 7 });
  });

  test('no answer whatever does anything but throw a failure', () => {
    const part = fc.oneof(
      fc.integer({ min: -2, max: 16385 }),
      fc.string(),
      fc.constant(null),
      fc.array(fc.oneof(fc.integer(), fc.string()), { maxLength: 3 }),
    );
    fc.assert(
      fc.property(fc.oneof(fc.anything(), fc.array(fc.array(part, { maxLength: 4 }), { maxLength: 3 })), (answer) => {
        try {
          parseSlots(answer, 'asked');
        } catch (error) {
          expect(error).toBeInstanceOf(LinkError);
        }
      }),
    );
    expect(() => parseSlots([], 'asked')).toThrow('to nobody yet');
    expect(() => parseSlots([[0, 5, 'x']], 'asked')).toThrow('a form that is not known');
  });
});

describe('the log of a link', () => {
  function setUp() {
    const lines: Record<string, unknown>[] = [];
    const clock = { now: 0 };
    const log = createLog({ level: 'info', readable: false }, { write: (line: string) => void lines.push(JSON.parse(line)) });
    return { lines, clock, say: new LinkLog(log, () => clock.now) };
  }

  test('says once that Redis is lost, however often it is tried, and that it is back', () => {
    const { lines, clock, say } = setUp();
    say.up('127.0.0.1:6379', 0);
    for (let i = 0; i < 50; i++) {
      clock.now += 500;
      say.lost('127.0.0.1:6379', { kind: 'gone', text: i % 2 === 0 ? 'connect ECONNREFUSED' : 'no answer for 3 s' }, false);
    }
    clock.now += 500;
    say.up('127.0.0.1:6379', 12);
    expect(lines.map(({ level, msg }) => [level, msg])).toEqual([
      ['info', 'connected to Redis'],
      ['warn', 'Redis cannot be used: messages reach only this node; trying again'],
      ['info', 'Redis is back, and every subscription with it'],
    ]);
    expect(lines[1]).toMatchObject({ redis: '127.0.0.1:6379', reason: 'connect ECONNREFUSED' });
    expect(lines[2]).toMatchObject({ topics: 12, seconds: 25 });
  });

  test('says what somebody has to change, when that is the reason', () => {
    const { lines, say } = setUp();
    say.lost('a', { kind: 'gone', text: 'connect ECONNREFUSED' }, false);
    say.lost('a', { kind: 'refused', text: 'wrong password' }, false);
    say.lost('a', { kind: 'refused', text: 'wrong password' }, false);
    expect(lines.map(({ level, reason }) => [level, reason])).toEqual([
      ['warn', 'connect ECONNREFUSED'],
      ['error', 'wrong password'],
    ]);
  });

  test('reminds while it stays lost', () => {
    const { lines, clock, say } = setUp();
    for (let second = 0; second < 150; second++) {
      clock.now = second * 1000;
      say.lost('a', { kind: 'gone', text: 'no' }, false);
    }
    expect(lines.length).toBe(3);
  });

  test('however often it comes and goes, lines are few, and those left out are counted', () => {
    const { lines, clock, say } = setUp();
    for (let i = 0; i < 200; i++) {
      say.lost('a', { kind: 'gone', text: 'no' }, false);
      say.up('a', 1);
      clock.now += 300;
    }
    expect(lines.length).toBeGreaterThanOrEqual(10);
    expect(lines.length).toBeLessThanOrEqual(15);
    const leftOut = lines.reduce((sum, { linesLeftOut = 0 }) => sum + (linesLeftOut as number), 0);
    clock.now += 60_000;
    say.gap(3);
    expect(lines.length + leftOut + (lines.at(-1)?.linesLeftOut as number)).toBe(401);
  });
});
