/** A gateway that mostly rests: few messages a second, which cost it what waking costs rather than what messages cost. */
import type { Turns, Workload } from './workloads.ts';

const rates = [20, 200, 1000, 3000] as const;
const connections = 100;

const gateway = { kind: 'cpu', subject: 'ringway', baseline: 'bun-serve' } as const;
const paced = (command: string, rate: number) => [command, '--connections', String(connections), '--rate', String(rate)];
/** As fast as it goes, until the compilers have seen the whole path. */
const warmed = (command: string): Turns => ({ servers: 'kept', slices: 3, warm: [command, '--connections', String(connections)] });
const fresh: Turns = { servers: 'fresh', slices: 3 };

export const lightWorkloads: readonly Workload[] = [
  ...rates.map(
    (rate): Workload => ({
      ...gateway,
      name: `light-${rate}`,
      title: `echo 20 B at ${rate.toLocaleString('en')} a second over ${connections} sockets, warm`,
      protocol: 'websocket',
      load: paced('ws-echo', rate),
      rate,
      turns: warmed('ws-echo'),
      target: 0.9,
      also: [
        { figure: 'p50', relative: true, most: 1.05 },
        { figure: 'p99', relative: true, most: 1.2 },
      ],
    }),
  ),
  ...rates.map(
    (rate): Workload => ({
      ...gateway,
      name: `light-first-${rate}`,
      title: `echo 20 B at ${rate.toLocaleString('en')} a second over ${connections} sockets, first seconds of a process`,
      protocol: 'websocket',
      load: paced('ws-echo', rate),
      rate,
      turns: fresh,
      target: 1.2,
    }),
  ),
  ...rates.map(
    (rate): Workload => ({
      ...gateway,
      name: `light-http-${rate}`,
      title: `GET /hello at ${rate.toLocaleString('en')} a second over ${connections} connections, warm`,
      protocol: 'http',
      load: paced('http', rate),
      rate,
      turns: warmed('http'),
      target: 0.9,
    }),
  ),
];
