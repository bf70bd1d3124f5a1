/** Messages on a topic that nobody is subscribed to: what goes to Redis, and what comes back. */
import type { Measurement } from './measurement.ts';
import type { RedisServer } from './redis.ts';
import { portOf, type Server } from './servers.ts';

const messages = 2000;
const payload = 'x'.repeat(100);
/** Nodes look after their connections all the time, with commands of any kind: what they do at rest is no part of a message. */
const restMs = 10_000;
/** Redis has been told of everything after this time; for how long the nodes are looked at. */
const tailMs = 2000;
/** `:0` and its line end: the reply to PUBLISH, which tells that nobody has received it. */
const replyBytes = 4;

interface Exchange {
  readonly calls: ReadonlyMap<string, number>;
  readonly receivedBytes: number;
  readonly sentBytes: number;
}

/** What has happened while `act` ran, less what would have happened at rest: `restPerMs`. */
async function during(redis: RedisServer, act: () => Promise<void>, restPerMs?: Exchange): Promise<Exchange & { elapsedMs: number }> {
  const from = await redis.counts();
  const began = performance.now();
  await act();
  const to = await redis.counts();
  const elapsedMs = performance.now() - began;
  const calls = [...to.calls].map(
    ([name, count]) => [name, count - (from.calls.get(name) ?? 0) - (restPerMs?.calls.get(name) ?? 0) * elapsedMs] as const,
  );
  return {
    calls: new Map(calls),
    receivedBytes: to.receivedBytes - from.receivedBytes - (restPerMs?.receivedBytes ?? 0) * elapsedMs,
    sentBytes: to.sentBytes - from.sentBytes - (restPerMs?.sentBytes ?? 0) * elapsedMs,
    elapsedMs,
  };
}

export async function measureSilence(server: Server): Promise<Measurement> {
  const { redis } = server;
  if (redis === undefined) throw new Error(`${server.name} has no Redis`);
  const socket = await connect(server);
  await Bun.sleep(tailMs);
  const rest = await during(redis, () => Bun.sleep(restMs));
  const restPerMs = {
    calls: new Map([...rest.calls].map(([name, count]) => [name, count / rest.elapsedMs])),
    receivedBytes: rest.receivedBytes / rest.elapsedMs,
    sentBytes: rest.sentBytes / rest.elapsedMs,
  };
  const say = server.name === 'socket-io' ? `42${JSON.stringify(['silent', payload])}` : payload;
  const said = await during(
    redis,
    async () => {
      for (let sent = 0; sent < messages; sent++) {
        socket.send(say);
        // Apart from each other: those that wait together may share a PUBLISH.
        await Bun.sleep(1);
      }
      await Bun.sleep(tailMs);
    },
    restPerMs,
  );
  socket.close();
  const others = [...said.calls].filter(([name, count]) => name !== 'publish' && count > messages / 100).map(([name]) => name);
  if (others.length > 0) throw new Error(`Redis was asked for more than PUBLISH: ${others.join(', ')}`);
  const publishes = Math.round(said.calls.get('publish') ?? 0);
  if (publishes < 1 || said.receivedBytes < messages * payload.length)
    throw new Error(`of ${messages} messages only ${Math.round(said.receivedBytes)} bytes have reached Redis`);
  return {
    // What the nodes do at rest is known to within a fraction of a byte per message.
    value: Math.max(0, Math.round((said.sentBytes - publishes * replyBytes) / messages)),
    note: `${publishes} PUBLISH for ${messages} messages of ${payload.length} B, ${(said.receivedBytes / messages).toFixed(0)} B each to Redis`,
  };
}

async function connect(server: Server): Promise<WebSocket> {
  const isSocketIo = server.name === 'socket-io';
  const path = isSocketIo ? '/socket.io/?EIO=4&transport=websocket' : '/publisher/nobody';
  const socket = new WebSocket(`ws://127.0.0.1:${portOf(server)}${path}`);
  await new Promise<void>((resolve, reject) => {
    socket.onerror = () => reject(new Error(`the handshake of ${path} was refused`));
    if (!isSocketIo) socket.onopen = () => resolve();
    socket.onmessage = ({ data }) => {
      const text = String(data);
      if (text.startsWith('0')) socket.send('40');
      if (text.startsWith('40')) resolve();
      if (text === '2') socket.send('3');
    };
  });
  return socket;
}
