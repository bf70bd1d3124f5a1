/**
 * Kinds of values in terms of zod: each judges one value, and its message says what to write instead.
 * Role: what schema.ts and websocket-options.ts are made of.
 */
import { z } from 'zod';
import { show } from './show.ts';
import { nearest } from './suggest.ts';

type Range = readonly [least: number, most: number];
export type RawIssue = { readonly code?: string; readonly input?: unknown; readonly keys?: unknown };

export const sayInstead = (what: string) => (issue: RawIssue) => `is ${show(issue.input)}; write ${what}`;

/** Plain digits, so that they can be copied into a config; but nobody copies 9007199254740991. */
function bound(value: number): string {
  return value === Number.MAX_SAFE_INTEGER ? '2^53 - 1' : String(value);
}

export function integer([least, most]: Range, unit = '') {
  const error = sayInstead(`an integer from ${bound(least)} to ${bound(most)}${unit}`);
  return z.number({ error }).int({ error }).min(least, { error }).max(most, { error });
}

export function powerOfTwo([least, most]: Range) {
  const error = sayInstead(`a power of two from ${least} to ${most}`);
  const isPower = (value: number) => Number.isInteger(Math.log2(value));
  return z.number({ error }).min(least, { error }).max(most, { error }).refine(isPower, { error });
}

export function seconds([least, most]: Range, note = '') {
  const error = sayInstead(`a number of seconds from ${least} to ${most}${note}`);
  return z.number({ error }).min(least, { error }).max(most, { error });
}

export function autoOrSeconds([least, most]: Range) {
  const error = sayInstead(`'auto' or a number of seconds from ${least} to ${most}`);
  return z.union([z.literal('auto'), z.number({ error }).min(least, { error }).max(most, { error })], { error });
}

export function oneOf<const Values extends readonly [string, ...string[]]>(values: Values) {
  return z.enum(values, { error: sayInstead(values.map((value) => `'${value}'`).join(' or ')) });
}

export function boolean() {
  return z.boolean({ error: sayInstead('true or false') });
}

/** Options that people know from elsewhere, and where they are here. */
const elsewhere: Readonly<Record<string, string>> = {
  port: 'write listen: { port }',
  host: 'write listen: { host }',
  hostname: 'write listen: { host }',
  unix: 'write listen: { unix }',
  app: 'write fetch: app',
  handler: 'write fetch: handler',
  routes: 'routes belong to the app given as fetch',
};

/** One sentence for a key that is not an option. */
export function unknownKey(key: string, known: readonly string[], kind = 'option'): string {
  const near = nearest(key, known);
  if (near !== undefined) return `is not an ${kind}; did you mean ${near}?`;
  const hint = known.includes('listen') ? elsewhere[key] : undefined;
  return `is not an ${kind}; ${hint ?? `write one of ${known.join(', ')}`}`;
}

/** An object without other keys than these. Its message for unknown keys has one line for each of `issue.keys`. */
export function options<Shape extends z.ZodRawShape>(shape: Shape) {
  const known = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue: RawIssue) =>
      issue.code === 'unrecognized_keys'
        ? (issue.keys as string[]).map((key) => unknownKey(key, known)).join('\n')
        : `is ${show(issue.input)}; write an object such as { ${known[0]}: ... }`,
  });
}

export function autoOr(range: readonly [number, number]) {
  return z.union([z.literal('auto'), integer(range)], { error: sayInstead(`'auto' or an integer from ${range[0]} to ${range[1]}`) });
}

/** RFC 9110 §5.6.2; Sec-WebSocket-Protocol lists tokens (RFC 6455 §4.1). */
export const token = /^[!#$%&'*+\-.^_`|~A-Za-z0-9]+$/;
