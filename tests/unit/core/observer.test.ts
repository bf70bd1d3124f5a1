import { afterEach, describe, expect, test } from 'bun:test';
import { abortCause } from '../../../ffi/layout.ts';
import type { RequestHead, RequestName } from '../../../src/core/http.ts';
import type { Observer } from '../../../src/core/observer.ts';
import { requestPath } from '../../../src/core/request-target.ts';
import { closePayload, frame, opcode } from '../../support/frames.mjs';
import { backends, LiveCore } from '../../support/live-core.ts';
import { get, UwsExchange } from '../../support/uws-exchange.ts';

let live: LiveCore;
afterEach(() => live.destroy());

/** Writes down what it is told, requests by their paths. */
function recorder(): { told: string[]; observer: Observer; heads: RequestHead[] } {
  const told: string[] = [];
  const heads: RequestHead[] = [];
  const pathOf = ({ slot, generation, request }: RequestName) => {
    const head = heads.findLast((each) => each.slot === slot && each.generation === generation && each.request === request);
    return head === undefined ? 'unknown' : requestPath(head);
  };
  const observer: Observer = {
    requestBegan(head) {
      heads.push(head);
      told.push(`began ${pathOf(head)}`);
    },
    responseBegan: (name, status) => void told.push(`${status} for ${pathOf(name)}`),
    responseEnded: (name, isWhole) => void told.push(`${isWhole ? 'ended' : 'broke off'} ${pathOf(name)}`),
    requestAborted: (name, cause, status) => void told.push(`aborted ${pathOf(name)} ${cause} ${status}`),
    socketOpened: (name) => void told.push(`opened ${pathOf(name)}`),
    socketClosed: (_slot, _generation, code) => void told.push(`closed ${code}`),
  };
  return { told, observer, heads };
}

describe.each([...backends])('observers on %s', (backend) => {
  test('are told of requests and responses, whatever serves them', async () => {
    live = new LiveCore(backend);
    const { told, observer, heads } = recorder();
    live.core.observe(observer);
    live.onRequest = (head) => {
      const { core } = live;
      const path = requestPath(head);
      if (path === '/whole') core.respond(head, 404, '', 'x');
      if (path === '/streamed' || path === '/broken') core.respondBegin(head, 200, '', -1);
      if (path === '/streamed') core.respondEnd(head);
      if (path === '/broken') core.respondAbort(head);
    };
    for (const path of ['/whole', '/streamed', '/broken']) {
      const wire = await live.connect();
      wire.write(get(path));
      await live.until(`the answer to ${path}`, () => wire.received.length > 0 || wire.ended !== undefined);
    }
    expect(told).toEqual([
      'began /whole',
      '404 for /whole',
      'ended /whole',
      'began /streamed',
      '200 for /streamed',
      'ended /streamed',
      'began /broken',
      '200 for /broken',
      'broke off /broken',
      // Which is what ends it for the core, too.
      `aborted /broken ${abortCause.byHost} 0`,
    ]);
    // The very object that the frontend is given: what is known of it is found again by both.
    expect(heads.map((head, index) => head === live.requests[index])).toEqual([true, true, true]);
  });

  test('are told of a client that leaves before it is answered', async () => {
    live = new LiveCore(backend);
    const { told, observer } = recorder();
    live.core.observe(observer);
    const wire = await live.connect();
    wire.write(get('/wait'));
    await live.until('the request', () => live.requests.length > 0);
    wire.reset();
    await live.until('the abort', () => live.log.some((line) => line.startsWith('abort')));
    expect(told).toEqual(['began /wait', `aborted /wait ${abortCause.peerGone} 0`]);
  });

  test('are told of WebSockets, and each of all that it asks for', async () => {
    live = new LiveCore(backend);
    const one = recorder();
    const codes: number[] = [];
    live.core.observe(one.observer);
    live.core.observe({ socketClosed: (_slot, _generation, code) => void codes.push(code) });
    const { wire } = await live.open();
    wire.write(frame(opcode.close, closePayload(1000, '')));
    await live.until('the end', () => live.log.some((line) => line.startsWith('close')));
    expect(one.told).toEqual(['began /', 'opened /', 'closed 1000']);
    expect(codes).toEqual([1000]);
  });

  test('are told the same of a frontend that takes requests as records', async () => {
    const exchange = new UwsExchange(backend);
    ({ live } = exchange);
    const { told, observer, heads } = recorder();
    live.core.observe(observer);
    await exchange.answer((response) => response.end('x'), get('/a?b'));
    await exchange.answer((response) => response.writeStatus('201 Created').write('x'), get('/c')).catch(() => {});
    expect(told).toEqual([
      'began /a',
      '200 for /a',
      'ended /a',
      'began /c',
      '201 for /c',
      'broke off /c',
      `aborted /c ${abortCause.byHost} 0`,
    ]);
    expect(heads.map(({ raw }) => raw.includes('host\nlocalhost\n'))).toEqual([true, true]);
  });

  test('see the name that a listener has for requests', async () => {
    live = new LiveCore(backend);
    const { observer, heads } = recorder();
    live.core.observe(observer);
    const port = live.listenAs(5, 2);
    for (const each of [live.port, port]) {
      const wire = await live.connect(each);
      wire.write(get('/'));
    }
    await live.until('both requests', () => heads.length === 2);
    expect(heads.map(({ listener }) => listener)).toEqual([0, 2]);
    expect(live.requests.map(({ listener }) => listener)).toEqual([0, 2]);
  });
});
