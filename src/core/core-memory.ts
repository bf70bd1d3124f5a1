/**
 * What the parts of a core have in common: its batches, and the memory of slots and counters, which C and TypeScript both read.
 *
 * Role: the lowest of the classes that make a Core, each of which adds to the one below what its file is named after: core-memory.ts,
 * http-commands.ts, socket-commands.ts, topic-commands.ts, core.ts. They are one object, since a message that crosses is to cost no call and no
 * load more. Down: ffi/bindings.ts. Layouts come from ffi/layout.ts, which is generated from the C headers.
 *
 * Memory that the core owns is read through typed arrays made once; nothing is allocated per event but what a handler asks for.
 */
import { type CoreHandle, coreCalls } from '../../ffi/bindings.ts';
import { backend, capacity, commandLayout, coreInfoLayout, eventLayout, slotLayout, slotStateMask, statsLayout } from '../../ffi/layout.ts';
import { CommandBatch } from './command-batch.ts';
import { EventBatch } from './event-batch.ts';
import { type BackendName, type CoreOptions, encodeConfig } from './options.ts';

/** Words of a slot: its size, and where its fields lie. */
export const slotWords = slotLayout.bytes / 4;
export const slotOutBytes = slotLayout.outBytes / 4;
const slotGeneration = slotLayout.generation / 4;
export const slotState = slotLayout.state / 4;

/** `enum rw_phase` within a slot's state. */
const phaseMask = slotStateMask.phase;
const phaseOpen = 1;

export abstract class CoreMemory {
  protected readonly pointer: CoreHandle;
  protected readonly commands: CommandBatch;
  protected readonly events: EventBatch;
  protected readonly slots: Uint32Array;
  protected readonly stats: BigUint64Array;
  protected readonly interrupted: Uint32Array;
  /** One word that the supervisor changes; undefined: no shared memory. */
  protected readonly viewWord: BigUint64Array | undefined;
  protected readonly payloadAddress: number;
  /** The payload area and, from `capacity.payloadBytes` on, `capacity.lendBytes` for the host's own use; for decoding text. */
  readonly payload: Buffer;
  /** The same memory; not a Buffer, whose slice() does not copy. */
  readonly payloadBytes: Uint8Array;
  readonly backend: BackendName;
  /** Why io_uring was not taken, or empty. */
  readonly note: string;
  /** This process among those that have had its place; odd. 0: no shared memory. */
  readonly epoch: number;

  constructor(options: CoreOptions) {
    const { core, note } = coreCalls.create(encodeConfig(options));
    this.pointer = core;
    this.note = note;
    const info = new Uint8Array(coreInfoLayout.bytes);
    coreCalls.info(core, info);
    const view = new DataView(info.buffer);
    const address = (offset: number) => Number(view.getBigUint64(offset, true));
    this.commands = new CommandBatch(
      core,
      coreCalls.view(address(coreInfoLayout.commands), capacity.commandsCapacity * commandLayout.bytes),
      coreCalls.view(address(coreInfoLayout.data), capacity.dataBytes),
    );
    this.payloadAddress = address(coreInfoLayout.payload);
    this.payloadBytes = new Uint8Array(coreCalls.view(this.payloadAddress, capacity.payloadBytes + capacity.lendBytes));
    this.payload = Buffer.from(this.payloadBytes.buffer);
    const records = coreCalls.view(address(coreInfoLayout.events), capacity.eventsCapacity * eventLayout.bytes);
    this.events = new EventBatch(records, this.payloadBytes, this.payload);
    const slots = view.getUint32(coreInfoLayout.maxConnections, true);
    this.slots = new Uint32Array(coreCalls.view(address(coreInfoLayout.slots), slots * slotLayout.bytes));
    this.stats = new BigUint64Array(coreCalls.view(address(coreInfoLayout.stats), statsLayout.bytes));
    this.interrupted = new Uint32Array(coreCalls.view(address(coreInfoLayout.interrupted), 4));
    const viewAddress = address(coreInfoLayout.view);
    this.viewWord = viewAddress === 0 ? undefined : new BigUint64Array(coreCalls.view(viewAddress, 8));
    this.epoch = view.getUint32(coreInfoLayout.epoch, true);
    this.backend = view.getUint32(coreInfoLayout.backend, true) === backend.ioUring ? 'io_uring' : 'epoll';
  }

  /** Apply the queued commands now; payloads of the present batch stay. */
  flush(): void {
    this.commands.flush();
  }

  /** Whether this connection is there still, and no side has begun to end it. */
  protected isLive(slot: number, generation: number): boolean {
    const base = slot * slotWords;
    return this.slots[base + slotGeneration] === generation && ((this.slots[base + slotState] as number) & phaseMask) === phaseOpen;
  }
}
