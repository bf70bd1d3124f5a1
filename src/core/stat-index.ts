/** Where a counter stands among the others, by its name in C. */
import { statsLayout } from '../../ffi/layout.ts';

export function statIndex(name: string): number {
  const index = statsLayout.fields.findIndex((field) => field.name === name);
  if (index < 0) throw new Error(`no counter is named ${name}`);
  return index;
}
