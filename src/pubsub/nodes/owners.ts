/**
 * Which worker of a node owns a topic: holds its subscription, and hands on what comes.
 *
 * Role: pure. Up: interest.ts, ownership.ts, bus.ts. The view (which workers own topics) stands in the node's shared memory; the supervisor writes
 * it at start and at every reload, always with places of their own for the new workers.
 * All workers of a node must find the same owner, those of two releases too: the hash below does not change.
 */
import type { NodeView } from '../../core/node.ts';

/** FNV-1a over the bytes of a topic, and a last mix, because its low bits alone are weak. ret: 32 bits */
export function topicHash(key: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

export function ownerOf(key: string, view: NodeView): number {
  return view.first + (topicHash(key) % view.count);
}

export function isIn(view: NodeView, worker: number): boolean {
  return worker >= view.first && worker < view.first + view.count;
}

/** Whether every topic has the same owner in both. */
export function haveSameOwners(a: NodeView, b: NodeView): boolean {
  return a.first === b.first && a.count === b.count;
}
