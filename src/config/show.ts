/** How messages about a config write what stands in it. Role: needs nothing, so that a supervisor can do without what judges configs. */

/** A value as it may stand in a message: short, and on one line. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value);
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  if (typeof value === 'object' && value !== null) return value instanceof Promise ? 'a promise' : 'an object';
  if (typeof value === 'symbol') return 'a symbol';
  return typeof value === 'bigint' ? `${value}n` : String(value);
}
