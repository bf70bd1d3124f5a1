/**
 * Schedules of a model: what happens, in which order, from a seed alone; and the shortest one that still fails.
 *
 * Role: pure. A step names no thing, only numbers; whoever runs it takes them modulo what there is, so that any part of a schedule is a schedule.
 */
import fc from 'fast-check';

export interface Step<Kind extends string = string> {
  readonly kind: Kind;
  readonly a: number;
  readonly b: number;
  /** Milliseconds from this step to the next. */
  readonly pause: number;
}

/** `weights`: how often each kind, in parts of their sum. */
export function scheduleOf<Kind extends string>(
  seed: number,
  length: number,
  weights: Readonly<Record<Kind, number>>,
  pauseMax: number,
): Step<Kind>[] {
  const kinds = Object.entries<number>(weights).map(([kind, weight]) => ({ weight, arbitrary: fc.constant(kind as Kind) }));
  const step = fc.record(
    { kind: fc.oneof(...kinds), a: fc.nat(0xffff), b: fc.nat(0xffff), pause: fc.nat(pauseMax) },
    { noNullPrototype: true },
  );
  return fc.sample(fc.array(step, { minLength: length, maxLength: length }), { seed, numRuns: 1 })[0] ?? [];
}

/** Leave out parts, halves first, as long as what is left fails and there is time. */
export async function shorten<Kind extends string>(
  steps: readonly Step<Kind>[],
  fails: (steps: readonly Step<Kind>[]) => Promise<boolean>,
  limitMs: number,
): Promise<readonly Step<Kind>[]> {
  const end = performance.now() + limitMs;
  let least = steps;
  for (let size = Math.ceil(least.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < least.length && performance.now() < end; ) {
      const fewer = [...least.slice(0, at), ...least.slice(at + size)];
      if (await fails(fewer)) least = fewer;
      else at += size;
    }
  }
  return least;
}

/** As lines, to be read and to be run again. */
export function shown(steps: readonly Step[]): string {
  return steps.map(({ kind, a, b, pause }) => `  ${kind} ${a} ${b} ${pause}`).join('\n');
}
