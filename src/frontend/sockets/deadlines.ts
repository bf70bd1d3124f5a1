/**
 * Times by which something is to happen, for many things at once: looked at once a second, with no timer of their own.
 * Role: pure. Up: sessions.ts.
 */

/** What has a deadline. */
export interface Due {
  /** The second it is listed under; undefined: in none. Of Deadlines alone, of which one at a time lists it. */
  due: number | undefined;
}

export class Deadlines<Item extends Due> {
  /** By second. */
  readonly #bySecond = new Map<number, Set<Item>>();
  /** No item is due before. */
  #earliest = Number.POSITIVE_INFINITY;

  /** Let `item` be due at that time, in milliseconds, and at no other. It is rounded up to a second. */
  set(item: Item, atMs: number): void {
    this.delete(item);
    const second = Math.ceil(atMs / 1000);
    const items = this.#bySecond.get(second);
    if (items === undefined) this.#bySecond.set(second, new Set([item]));
    else items.add(item);
    item.due = second;
    this.#earliest = Math.min(this.#earliest, second);
  }

  delete(item: Item): void {
    if (item.due === undefined) return;
    const items = this.#bySecond.get(item.due);
    // It may be listed elsewhere.
    if (items === undefined || !items.delete(item)) return;
    if (items.size === 0) this.#bySecond.delete(item.due);
    item.due = undefined;
  }

  /** Take out what is due by now, whatever clocks have done meanwhile. */
  take(nowMs: number): Item[] {
    const now = Math.floor(nowMs / 1000);
    if (now < this.#earliest) return [];
    const taken: Item[] = [];
    this.#earliest = Number.POSITIVE_INFINITY;
    for (const [second, items] of this.#bySecond) {
      if (second > now) {
        this.#earliest = Math.min(this.#earliest, second);
        continue;
      }
      this.#bySecond.delete(second);
      for (const item of items) {
        item.due = undefined;
        taken.push(item);
      }
    }
    return taken;
  }
}
