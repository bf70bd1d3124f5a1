/**
 * Holds two transcripts against each other.
 *
 * A declared difference is asserted as it is written, on both sides, and then taken out; all that is left must be equal. So a
 * difference that disappears, or changes, fails as much as one that nobody has declared.
 */
import { expect } from 'bun:test';
import type { Difference, Transcript } from './side.ts';

function valueAt(transcript: Transcript, difference: Difference): unknown {
  if ('process' in difference) return transcript.process;
  if ('step' in difference) return transcript.client[difference.step];
  return transcript.server.filter(([event]) => event === difference.event).map(([, ...values]) => values);
}

function without(transcript: Transcript, differences: readonly Difference[]): Transcript {
  const client = { ...transcript.client };
  for (const difference of differences) if ('step' in difference) delete client[difference.step];
  return {
    client,
    server: transcript.server.filter(([event]) => !differences.some((difference) => 'event' in difference && difference.event === event)),
    process: differences.some((difference) => 'process' in difference) ? '' : transcript.process,
  };
}

export function compare(original: Transcript, ours: Transcript, differences: readonly Difference[] = []): void {
  for (const difference of differences) {
    expect({ [`${difference.id} in the original`]: valueAt(original, difference) }).toEqual({
      [`${difference.id} in the original`]: difference.original,
    });
    expect({ [`${difference.id} in Ringway`]: valueAt(ours, difference) }).toEqual({ [`${difference.id} in Ringway`]: difference.ours });
    expect(difference.ours, `${difference.id} declares a difference`).not.toEqual(difference.original);
  }
  expect(without(ours, differences)).toEqual(without(original, differences));
}
