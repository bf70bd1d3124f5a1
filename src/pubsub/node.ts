/**
 * The workers of one node, joined by shared memory: the core puts what is published into a ring for each worker that has declared interest, and takes
 * from its own rings once a turn (ffi/core/node/node_bus.h). Nothing of it passes through TypeScript.
 */
import type { BusKind } from './bus.ts';
import { MemoryBus } from './memory.ts';

export class NodeBus extends MemoryBus {
  override readonly kind: BusKind = 'node';
}
