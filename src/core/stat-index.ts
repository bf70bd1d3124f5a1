/**
 * Where each counter stands in a worker's block of shared memory, by its name: those of the core as C lays them out, and behind them those
 * of TypeScript, as host-counters.ts declares them.
 */
import { statsLayout } from '../../ffi/layout.ts';
import { type HostCounter, hostCounters } from './host-counters.ts';
import type { Family, Source } from './metric-family.ts';

export type StatName = (typeof statsLayout.fields)[number]['name'] | HostCounter;

export interface Stat {
  readonly name: string;
  readonly kind: Family['kind'];
  /** In words from the start of the block. */
  readonly index: number;
}

type Declared = { readonly kind: Family['kind']; readonly sources: readonly Source[] };

const wordsTo = (offset: number) => offset / BigUint64Array.BYTES_PER_ELEMENT;

/** Counters and gauges have words apart: the core takes the gauges of a dead worker back, and keeps its counters. */
export function placesOf(declared: readonly Declared[]): Stat[] {
  const taken = { counter: 0, gauge: 0 };
  const most = { counter: statsLayout.hostCountersMost, gauge: statsLayout.hostGaugesMost };
  const first = { counter: wordsTo(statsLayout.hostCounters), gauge: wordsTo(statsLayout.hostGauges) };
  return declared.flatMap(({ kind, sources }) =>
    sources.map(([name]) => {
      if (taken[kind] >= most[kind]) {
        const constant = kind === 'counter' ? 'RW_HOST_COUNTERS' : 'RW_HOST_GAUGES';
        throw new Error(
          `no room for the ${kind} ${name}: ${most[kind]} of TypeScript's fit; raise ${constant} and RW_ABI_VERSION in ffi/include/ringway.h, then run 'make -C ffi layout build'`,
        );
      }
      return { name, kind, index: first[kind] + taken[kind]++ };
    }),
  );
}

const hostStats = placesOf(hostCounters);

/** Of the core and of TypeScript. */
export const stats: readonly Stat[] = [
  ...statsLayout.fields.map(({ name, kind, offset }) => ({ name, kind, index: wordsTo(offset) })),
  ...hostStats,
];

/** Stands for what TypeScript's words mean: memory that others count in otherwise is not read (`host_layout` of rw_shm_create()). */
export const hostLayout: number = Bun.hash.crc32(hostStats.map(({ name, index }) => `${name} ${index}`).join('\n'));

const indexes = new Map(stats.map(({ name, index }) => [name, index]));
if (indexes.size !== stats.length) throw new Error('two counters have the same name: look for it in host-counters.ts');

export function statIndex(name: StatName): number {
  const index = indexes.get(name);
  if (index === undefined) throw new Error(`no counter is named ${name}`);
  return index;
}
