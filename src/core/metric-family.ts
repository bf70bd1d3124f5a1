/**
 * How counters in shared memory are shown: families of Prometheus, each with the counters that make it up.
 * Role: pure. Up: host-counters.ts for what TypeScript counts, supervisor/metrics.ts for what the core counts.
 */
export type Labels = Readonly<Record<string, string>>;
export type Source<Field extends string = string> = readonly [field: Field, labels: Labels];

export interface Family<Field extends string = string> {
  readonly name: string;
  readonly help: string;
  readonly kind: 'counter' | 'gauge';
  /** Counters in shared memory, each with its labels. */
  readonly sources: readonly Source<Field>[];
  /** To base units (Prometheus: seconds, bytes). */
  readonly scale?: number;
  /** How workers make up the node; 'none': their values have no total. Default 'sum'. */
  readonly node?: 'sum' | 'max' | 'none';
}

export const one = <const Field extends string>(field: Field): readonly Source<Field>[] => [[field, {}]];
export const by = <const Field extends string>(label: string, fields: Readonly<Record<string, Field>>): readonly Source<Field>[] =>
  Object.entries(fields).map(([value, field]): Source<Field> => [field, { [label]: value }]);
export const counter = <const Field extends string>(name: string, help: string, sources: readonly Source<Field>[]): Family<Field> => ({
  name: `${name}_total`,
  help,
  kind: 'counter',
  sources,
});
export const gauge = <const Field extends string>(
  name: string,
  help: string,
  sources: readonly Source<Field>[],
  more: Pick<Family, 'scale' | 'node'> = {},
): Family<Field> => ({ name, help, kind: 'gauge', sources, ...more });
