/**
 * A frontend that no file of src/ knows: a protocol of lines over WebSockets. Whatever comes to its path, in messages cut anywhere, is given
 * back line by line; a GET of the path tells how many lines there were. Role: registered by the config of tests/e2e/frontends.test.ts.
 */
import { commandFlag, eventFlag } from '../../src/core/abi.ts';
import { requestPath } from '../../src/core/request-target.ts';
import type { Frontend, FrontendEntry } from '../../src/frontend/frontend.ts';

/** Longer lines end their connection. */
const lineMost = 4096;
const times = { idleTimeoutMs: 60_000, pingIntervalMs: 30_000, maxLifetimeMs: 0, closeTimeoutMs: 1000, messageTimeoutMs: 10_000 };
const wishes = { closeOnBackpressure: true, wantsPing: false, wantsPong: false, wantsDropped: false, wantsDrain: false };

export const lineEcho = (path: string): FrontendEntry => ({
  name: 'line echo',
  metrics: [],
  create(host): Frontend {
    const { core } = host;
    const behavior = host.addBehavior({ maxPayloadBytes: 65536, maxBackpressureBytes: 65536, ...times, ...wishes });
    /** By slot: the beginning of a line whose end has not come. */
    const begun: string[] = [];
    let count = 0;
    return {
      pending: 0,
      speaksAt: (other) => other === path,
      requests: {
        takes(head) {
          if (requestPath(head) !== path) return false;
          if (!(head.flags & eventFlag.requestUpgrade)) core.respond(head, 200, 'content-type: text/plain\r\n', `${count} lines`);
          else core.acceptUpgrade(head, '', behavior);
          return true;
        },
      },
      sockets: {
        onOpen(slot) {
          begun[slot] = '';
        },
        onMessage(slot, generation, _isBinary, offset, bytes, large) {
          const text = large === undefined ? core.payload.toString('utf8', offset, offset + bytes) : Buffer.from(large).toString();
          const lines = `${begun[slot]}${text}`.split('\n');
          const rest = lines.pop() as string;
          for (const line of lines) core.send(slot, generation, commandFlag.sendText, line);
          count += lines.length;
          begun[slot] = rest;
          if (rest.length > lineMost) core.close(slot, generation, 1009, 'the line is too long');
        },
        onClose: (slot) => void delete begun[slot],
        onDrain() {},
        onPing() {},
        onPong() {},
        onDropped() {},
      },
    };
  },
});
