/**
 * What handlers wait for through Bun's own event loop, timers and fetch, comes as soon as it does on bare Bun: at rest, with some messages, and under load.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';

// Only ends a test that has failed.
setDefaultTimeout(120_000);

/** What the worker may be later than bare Bun in the middle, and at the worst but one in ten, in milliseconds. */
const laterMost = { p50: 20, p90: 100 };
const rounds = 30;

/**
 * Measures in the background, so that no promise of a handler is pending meanwhile, which a loop may take notice of. Both servers run this same
 * code.
 */
const measure = `
let result;
async function measure(url) {
  result = undefined;
  const times = { zero: [], five: [], fetch: [] };
  const took = async (list, what, due) => {
    const began = performance.now();
    await what();
    list.push(performance.now() - began - due);
    // At another moment of whatever goes on each time.
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 7));
  };
  for (let i = 0; i < ${rounds}; i++) {
    await took(times.zero, () => new Promise((resolve) => setTimeout(resolve, 0)), 0);
    await took(times.five, () => new Promise((resolve) => setTimeout(resolve, 5)), 5);
    await took(times.fetch, async () => (await fetch(url)).text(), 0);
  }
  result = times;
}
function answer(request) {
  const { pathname, searchParams } = new URL(request.url);
  if (pathname === '/result') return Response.json(result ?? null);
  void measure(searchParams.get('url'));
  return new Response('measuring');
}
`;

const config = `
import { defineGateway } from 'ringway';
${measure}
export default defineGateway({
  $OPTIONS,
  fetch: answer,
  websocket: { '/echo': { message(socket, message) { socket.send(message); } } },
});
`;

const bare = `
${measure}
const server = Bun.serve({
  port: 0,
  hostname: '127.0.0.1',
  fetch(request, server) {
    if (new URL(request.url).pathname === '/echo' && server.upgrade(request)) return;
    return answer(request);
  },
  websocket: { message(socket, message) { socket.send(message); } },
});
console.log(server.port);
`;

/** Messages that are answered: \`gapMs\` between two of a socket, 0: the next as soon as the last is answered. */
const load = `
const [url, sockets, gapMs] = process.argv.slice(2);
process.stdin.on('end', () => process.exit(0)).resume();
for (let i = 0; i < Number(sockets); i++) {
  const socket = new WebSocket(url + '/echo');
  const say = () => socket.send('twenty bytes of text');
  socket.onopen = () => setTimeout(say, (Math.random() * Number(gapMs)));
  socket.onmessage = () => (Number(gapMs) === 0 ? say() : setTimeout(say, Number(gapMs)));
}
`;

const loads = { 'at rest': undefined, 'with 500 messages a second': [20, 40], 'under load': [50, 0] } as const;

type Times = Record<'zero' | 'five' | 'fetch', number[]>;

const folder = mkdtempSync(join(tmpdir(), 'ringway-prompt-'));
let bareServer: Bun.Subprocess<'ignore', 'pipe', 'inherit'>;
let bareUrl = '';
let target: Bun.Server<undefined>;
beforeAll(async () => {
  writeFileSync(join(folder, 'bare.ts'), bare);
  writeFileSync(join(folder, 'load.ts'), load);
  target = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response('here') });
  bareServer = Bun.spawn([process.execPath, join(folder, 'bare.ts')], { stdin: 'ignore', stdout: 'pipe', stderr: 'inherit' });
  const { value } = await bareServer.stdout.getReader().read();
  bareUrl = `http://127.0.0.1:${Number(new TextDecoder().decode(value))}`;
});
afterAll(async () => {
  bareServer?.kill('SIGKILL');
  await bareServer?.exited;
  await target?.stop(true);
  rmSync(folder, { recursive: true, force: true });
});

async function timesOf(url: string, load: readonly [number, number] | undefined): Promise<Times> {
  const [sockets, gapMs] = load ?? [0, 0];
  const child =
    load === undefined
      ? undefined
      : Bun.spawn([process.execPath, join(folder, 'load.ts'), url.replace('http', 'ws'), String(sockets), String(gapMs)], {
          stdin: 'pipe',
        });
  try {
    // Until the load is there, and what it takes to start it is over.
    await Bun.sleep(500);
    await fetch(`${url}/start?url=${encodeURIComponent(target.url.href)}`);
    // Nobody asks before it is likely to be over: at rest there is to be rest.
    await Bun.sleep(800);
    return (await eventually('all is measured', async () => {
      const times = (await (await fetch(`${url}/result`)).json()) as Times | null;
      if (times === null) await Bun.sleep(200);
      return times;
    })) as Times;
  } finally {
    await child?.stdin.end();
    await child?.exited;
  }
}

const quantile = (times: readonly number[], share: number) => times.toSorted((a, b) => a - b)[Math.floor(times.length * share)] as number;

forEachBackend('timers and fetch of handlers', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
  });
  afterAll(() => gateway?.stop());

  for (const [when, load] of Object.entries(loads)) {
    test(`are as prompt as on bare Bun ${when}`, async () => {
      const [ours, theirs] = [await timesOf(gateway.url, load), await timesOf(bareUrl, load)];
      for (const what of ['zero', 'five', 'fetch'] as const) {
        const figures = {
          p50: [ours, theirs].map((all) => quantile(all[what], 0.5)),
          p90: [ours, theirs].map((all) => quantile(all[what], 0.9)),
        };
        const text = Object.entries(figures).map(([name, [a = 0, b = 0]]) => `${name} ${a.toFixed(2)} against ${b.toFixed(2)} ms`);
        console.log(`${backend}, ${when}: ${{ zero: 'setTimeout(0)', five: 'setTimeout(5)', fetch: 'fetch' }[what]} ${text.join(', ')}`);
        for (const name of ['p50', 'p90'] as const) {
          const [a = 0, b = 0] = figures[name];
          expect([what, name, a - b < laterMost[name]]).toEqual([what, name, true]);
        }
      }
    });
  }
});
