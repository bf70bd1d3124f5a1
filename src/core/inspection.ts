/**
 * How objects that handlers are given show themselves in logs: what is their own, by the names that handlers know.
 * Role: one method in each such class. console.log and util.inspect call it (util.inspect.custom).
 */
export const inspection: unique symbol = Symbol.for('nodejs.util.inspect.custom') as never;

/** What was shown of an object before. The same each time, so that whoever prints notices when an object leads back to itself. */
const views = new WeakMap<object, object>();
/**
 * `View`: a class of the name that is shown, without anything in it. (Bun prints the name that a class is written with, and no other.)
 * ret: what is printed for `value`: that name, and these properties.
 */
export function shown(value: object, View: new () => object, own: Readonly<Record<string, unknown>>): object {
  let view = views.get(value);
  if (view === undefined) {
    view = new View();
    views.set(value, view);
  }
  return Object.assign(view, own);
}
