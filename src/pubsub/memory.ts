/** One worker, one node: the core delivers to its own subscribers, and that is all there is to do. */
import type { Core, Payload, Topic } from '../core/core.ts';
import type { Bus, BusKind, BusState } from './bus.ts';

export type PublishingCore = Pick<Core, 'publish'>;

export class MemoryBus implements Bus {
  readonly kind: BusKind = 'memory';
  readonly state: BusState = 'up';
  readonly #core: PublishingCore;

  constructor(core: PublishingCore) {
    this.#core = core;
  }

  publish(topic: Topic, flags: number, payload: Payload, exceptSlot?: number, exceptGeneration?: number): void {
    this.#core.publish(topic, flags, payload, exceptSlot, exceptGeneration);
  }

  async close(_deadlineMs: number): Promise<void> {}
}
