/**
 * Messages, pings and closes of WebSockets, and what became of them.
 * Role: adds them to http-commands.ts. Up: topic-commands.ts. What is told of a connection is read from its slot.
 */
import { commandFlag, commandType, slotLayout, slotStateMask } from '../../ffi/layout.ts';
import { eagerBytes, frameHeadBytes, type Payload, roomOf } from './command-batch.ts';
import { slotOutBytes, slotState, slotWords } from './core-memory.ts';
import { HttpCommandQueue } from './http-commands.ts';
import { statIndex } from './stat-index.ts';

const slotOutUnflushed = slotLayout.outUnflushed / 4;
const slotHostWord = slotLayout.hostWord / 4;
/** Whole frames that wait until a message that is being sent in fragments is complete. */
const slotHeldBytes = slotLayout.heldBytes / 4;
const leftByHost = slotStateMask.leftByHost;

/** Index of the counter that tells whether a send was dropped. */
const dropsBackpressure = statIndex('drops_backpressure');

/** What became of a queued send. */
export type Outcome = 'sent' | 'backpressure' | 'dropped' | 'closed';

export abstract class SocketCommandQueue extends HttpCommandQueue {
  /** Up to here a connection that keeps up takes what is queued for it, whatever its behavior. */
  protected certainBytes = eagerBytes;

  /** Whether messages may be sent: not once either side has begun to close. */
  isOpen(slot: number, generation: number): boolean {
    return this.isLive(slot, generation) && !this.hasLeft(slot);
  }

  /** Whether this side has closed or terminated the connection that an event is about. */
  hasLeft(slot: number): boolean {
    return ((this.slots[slot * slotWords + slotState] as number) & leftByHost) !== 0;
  }

  /** Bytes queued for this WebSocket, those of the present batch included. */
  buffered(slot: number, generation: number): number {
    if (!this.isLive(slot, generation)) return 0;
    this.flush();
    const base = slot * slotWords;
    return this.isLive(slot, generation) ? (this.slots[base + slotOutBytes] as number) + (this.slots[base + slotHeldBytes] as number) : 0;
  }

  /** Of them, those that the kernel has refused so far, which `onDrain` follows, or that wait for the end of a message in fragments. */
  heldBack(slot: number, generation: number): number {
    const queued = this.buffered(slot, generation);
    return queued === 0 ? 0 : queued - (this.slots[slot * slotWords + slotOutUnflushed] as number);
  }

  /** Queue a message; `flags` are RW_SEND_*. */
  send(slot: number, generation: number, flags: number, payload: Payload): Outcome {
    if (!this.isOpen(slot, generation)) return 'closed';
    const length = typeof payload === 'string' ? payload.length : payload.byteLength;
    const exact = this.#mustSendExactly(slot, length);
    if (!exact) {
      this.commands.payload(commandType.send, flags, slot, generation, payload, 0);
      return 'sent';
    }
    this.flush();
    const dropsBefore = this.stats[dropsBackpressure];
    this.commands.payload(commandType.send, flags, slot, generation, payload, 0);
    return this.#outcome(slot, generation, dropsBefore);
  }

  /** Queue a message whose payload lies in the event batch; nothing is copied in JS. */
  sendFromEvent(slot: number, generation: number, flags: number, offset: number, bytes: number): Outcome {
    if (!this.isOpen(slot, generation)) return 'closed';
    const exact = this.#mustSendExactly(slot, bytes);
    if (!exact) {
      this.commands.push(commandType.send, flags | commandFlag.fromEvent, slot, generation, offset, bytes, 0, 0, 0);
      return 'sent';
    }
    this.flush();
    const dropsBefore = this.stats[dropsBackpressure];
    this.commands.push(commandType.send, flags | commandFlag.fromEvent, slot, generation, offset, bytes, 0, 0, 0);
    return this.#outcome(slot, generation, dropsBefore);
  }

  ping(slot: number, generation: number, data: Payload): void {
    this.commands.payload(commandType.ping, 0, slot, generation, data, 0);
    this.commands.queuedForAny += data.length + frameHeadBytes;
  }

  /** A ping whose outcome is known at once. `data`: at most 125 bytes. */
  pingNow(slot: number, generation: number, data: Payload): Outcome {
    if (!this.isOpen(slot, generation)) return 'closed';
    this.flush();
    const dropsBefore = this.stats[dropsBackpressure];
    this.commands.payload(commandType.ping, 0, slot, generation, data, 0);
    return this.#outcome(slot, generation, dropsBefore);
  }

  close(slot: number, generation: number, code: number, reason: string | Uint8Array): void {
    const commands = this.commands;
    const offset = commands.room(roomOf(reason));
    commands.push(commandType.wsClose, 0, slot, generation, offset, commands.write(reason, offset), code, 0, 0);
    // Applied at once, so that `isOpen` and `send` tell of it from the next line on.
    this.flush();
  }

  terminate(slot: number, generation: number): void {
    this.commands.push(commandType.terminate, 0, slot, generation, 0, 0, 0, 0, 0);
    this.flush();
  }

  pause(slot: number, generation: number): void {
    this.commands.push(commandType.pause, 0, slot, generation, 0, 0, 0, 0, 0);
  }

  /** `window`: what the host takes before it wants to be asked again, as `RW_COMMAND_RESUME` says; 0: no end. */
  resume(slot: number, generation: number, window = 0): void {
    this.commands.push(commandType.resume, 0, slot, generation, 0, 0, window, 0, 0);
  }

  /**
   * Is there a doubt whether the core will take this send? While a connection keeps up there is none and the answer is 'sent'
   * without a call; with backpressure, or much queued within a tick, the commands are applied at once and the core is asked.
   * What is queued for a connection is noted in its slot, so that it costs no JS memory.
   */
  #mustSendExactly(slot: number, length: number): boolean {
    const base = slot * slotWords;
    const slots = this.slots;
    const { stretch, queuedForAny } = this.commands;
    const before = slots[base + slotHostWord] === stretch ? (slots[base + slotHostWord + 1] as number) : 0;
    const queued = before + length + frameHeadBytes;
    const applied = slots[base + slotOutBytes] as number;
    if ((slots[base + slotHeldBytes] as number) > 0) return true;
    if (applied !== slots[base + slotOutUnflushed] || applied + queuedForAny + queued > this.certainBytes) return true;
    slots[base + slotHostWord] = stretch;
    slots[base + slotHostWord + 1] = queued;
    return false;
  }

  #outcome(slot: number, generation: number, dropsBefore: bigint | undefined): Outcome {
    this.flush();
    if (!this.isLive(slot, generation)) return 'closed';
    // The send was the only command applied since.
    if (this.stats[dropsBackpressure] !== dropsBefore) return 'dropped';
    const base = slot * slotWords;
    return (this.slots[base + slotOutBytes] as number) === (this.slots[base + slotOutUnflushed] as number) ? 'sent' : 'backpressure';
  }
}
