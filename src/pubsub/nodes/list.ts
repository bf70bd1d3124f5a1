/**
 * A list whose items know their neighbours: into it, out of its middle and off its front in the same short time, whatever its length.
 * Role: below outbox.ts. An item is in one list at a time.
 */

export interface Item<T> {
  before: T | undefined;
  after: T | undefined;
}

export class List<T extends Item<T>> {
  first: T | undefined;
  last: T | undefined;

  push(item: T): void {
    item.before = this.last;
    item.after = undefined;
    if (this.last === undefined) this.first = item;
    else this.last.after = item;
    this.last = item;
  }

  unshift(item: T): void {
    item.before = undefined;
    item.after = this.first;
    if (this.first === undefined) this.last = item;
    else this.first.before = item;
    this.first = item;
  }

  /** `item` is in this list. */
  remove(item: T): void {
    if (item.before === undefined) this.first = item.after;
    else item.before.after = item.after;
    if (item.after === undefined) this.last = item.before;
    else item.after.before = item.before;
    item.before = undefined;
    item.after = undefined;
  }
}
