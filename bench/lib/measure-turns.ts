/** Servers that are measured in turn, a few seconds each, so that what the machine does meanwhile meets all of them. */
import { highestRate, measure, warmUp } from './measure.ts';
import { type Measurement, medianOf } from './measurement.ts';
import type { Server, ServerName } from './servers.ts';
import type { Turns, Workload } from './workloads.ts';

export interface TurnsOptions {
  readonly start: (name: ServerName) => Promise<Server>;
  readonly clientCpu: number;
  readonly seconds: number;
}

/** One round: the median of its slices, of each server. */
export async function measureInTurn(workload: Workload, turns: Turns, names: readonly ServerName[], options: TurnsOptions) {
  const slices = new Map<ServerName, Measurement[]>(names.map((name) => [name, []]));
  const measureSlice = async (server: Server, rate?: number) => {
    const given = rate === undefined ? workload : { ...workload, rate, load: [...workload.load, '--rate', String(rate)] };
    slices.get(server.name)?.push(await measure(given, { server, ...options }));
  };
  await (turns.servers === 'fresh' ? freshInTurn : keptInTurn)(workload, turns, names, options, measureSlice);
  return new Map([...slices].map(([name, each]) => [name, medianOf(each)]));
}

type MeasureSlice = (server: Server, rate?: number) => Promise<void>;

async function keptInTurn(
  workload: Workload,
  { slices, warm, servers: how }: Turns,
  names: readonly ServerName[],
  options: TurnsOptions,
  measureSlice: MeasureSlice,
) {
  const servers: Server[] = [];
  try {
    for (const name of names) servers.push(await options.start(name));
    if (warm !== undefined) for (const server of servers) await warmUp(warm, { server, ...options });
    const baseline = servers.find(({ name }) => name === workload.baseline);
    const isHalf = workload.halfOf !== undefined && baseline !== undefined;
    const rate = isHalf ? Math.round((await highestRate(workload.halfOf, { server: baseline, ...options })) / 2) : undefined;
    for (let slice = 0; slice < slices; slice++) {
      if (how === 'together') await Promise.all(servers.map((server) => measureSlice(server)));
      else for (const server of inOrder(servers, slice)) await measureSlice(server, rate);
    }
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
  }
}

async function freshInTurn(
  _: Workload,
  { slices }: Turns,
  names: readonly ServerName[],
  { start }: TurnsOptions,
  measureSlice: MeasureSlice,
) {
  for (let slice = 0; slice < slices; slice++) {
    for (const name of inOrder(names, slice)) {
      const server = await start(name);
      try {
        await measureSlice(server);
      } finally {
        await server.stop();
      }
    }
  }
}

/** Nobody is always the first one. */
function inOrder<Each>(all: readonly Each[], slice: number): readonly Each[] {
  return slice % 2 === 0 ? all : all.toReversed();
}
