/** The body of a request, as onData, onDataV2 and collectBody give it, over a real core. */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import type { HttpResponse } from '../../../../src/frontend/uws/response.ts';
import { backends } from '../../../support/live-core.ts';
import { get, UwsExchange } from '../../../support/uws-exchange.ts';

const text = (buffer: ArrayBuffer) => Buffer.from(buffer).toString('latin1');

for (const backend of backends) {
  describe(`with ${backend}`, () => {
    let exchange: UwsExchange;

    beforeEach(() => {
      exchange = new UwsExchange(backend);
    });
    afterEach(() => exchange.destroy());

    const answer = (handler: (response: HttpResponse) => unknown, request = get('/')) => exchange.answer(handler, request);

    describe("the request's body", () => {
      const post = (body: string, fields = `Content-Length: ${body.length}\r\n`) => get('/', fields, 'POST') + body;

      test('comes in parts that are detached once the handler has returned', async () => {
        const seen: [string, boolean][] = [];
        let kept: ArrayBuffer | undefined;
        let view: Uint8Array | undefined;
        await answer((response) => {
          response.onAborted(() => {});
          response.onData((chunk, isLast) => {
            seen.push([text(chunk), isLast]);
            kept = chunk;
            view = new Uint8Array(chunk);
            if (isLast) response.end();
          });
        }, post('hello'));
        expect(seen.map(([part]) => part).join('')).toBe('hello');
        expect(seen.at(-1)?.[1]).toBe(true);
        expect([kept?.byteLength, view?.byteLength]).toEqual([0, 0]);
      });

      test('without bytes has one empty last part, also when the response is over by then', async () => {
        const seen: string[] = [];
        await answer((response) => {
          response.onData((chunk, isLast) => seen.push(`${chunk.byteLength} ${isLast}`));
          response.end();
          seen.push('returned');
        });
        await answer((response) => {
          response.onAborted(() => {});
          response.onData((chunk, isLast) => {
            seen.push(`${chunk.byteLength} ${isLast}`);
            response.end();
          });
        }, post(''));
        expect(seen).toEqual(['returned', '0 true', '0 true']);
      });

      test('that comes before anybody asks for it is lost', async () => {
        let parts = 0;
        let response: HttpResponse | undefined;
        exchange.handler = (given) => {
          response = given.onAborted(() => {});
        };
        const wire = await exchange.live.connect();
        wire.write(post('hello'));
        await exchange.live.until('the response', () => response);
        for (let turns = 0; turns < 5; turns += 1) exchange.live.turn();
        response?.onData(() => parts++);
        for (let turns = 0; turns < 5; turns += 1) exchange.live.turn();
        response?.end('answered');
        expect(await exchange.take(wire)).toEndWith('answered');
        expect(parts).toBe(0);
      });

      test('is acknowledged, so that one longer than the window goes on', async () => {
        const total = 3 << 20;
        let received = 0;
        exchange.handler = (response) => {
          response.onAborted(() => {});
          response.onData((chunk, isLast) => {
            received += chunk.byteLength;
            if (isLast) response.end(String(received));
          });
        };
        expect(await exchange.ask(post('x'.repeat(total)))).toEndWith(String(total));
      });

      test('is counted down by onDataV2 when its length is known', async () => {
        const counts: (readonly [number, bigint])[] = [];
        exchange.handler = (response) => {
          response.onAborted(() => {});
          response.onDataV2((chunk, left) => {
            counts.push([chunk.byteLength, left]);
            if (left === 0n) response.end();
          });
        };
        const wire = await exchange.live.connect();
        wire.write(get('/', 'Content-Length: 10\r\n', 'POST'));
        await exchange.live.until('the request', () => exchange.open.size === 1);
        wire.write('abc');
        await exchange.live.until('a part', () => counts.length === 1);
        wire.write('defghij');
        await exchange.take(wire);
        expect(counts).toEqual([
          [3, 7n],
          [7, 0n],
        ]);
      });

      test('has no known bound for onDataV2 while it is chunked', async () => {
        const counts: bigint[] = [];
        exchange.handler = (response) => {
          response.onAborted(() => {});
          response.onDataV2((_, left) => {
            counts.push(left);
            if (left === 0n) response.end();
          });
        };
        const wire = await exchange.live.connect();
        wire.write(`${get('/', 'Transfer-Encoding: chunked\r\n', 'POST')}3\r\nabc\r\n`);
        await exchange.live.until('a part', () => counts.length === 1);
        wire.write('0\r\n\r\n');
        await exchange.take(wire);
        expect(counts).toEqual([0xffff_ffff_ffff_ffffn, 0n]);
      });

      test('is put together by collectBody, detached only when it came whole', async () => {
        const bodies: ArrayBuffer[] = [];
        const texts: string[] = [];
        exchange.handler = (response) => {
          response.onAborted(() => {});
          response.collectBody(100, (body) => {
            texts.push(body === null ? 'too long' : text(body));
            if (body !== null) bodies.push(body);
            response.end();
          });
        };
        await exchange.ask(post('whole'));
        await exchange.ask(get('/'));
        const wire = await exchange.live.connect();
        wire.write(get('/', 'Transfer-Encoding: chunked\r\n', 'POST'));
        for (const part of ['one', 'two', 'three']) {
          wire.write(`${part.length.toString(16)}\r\n${part}\r\n`);
          for (let turns = 0; turns < 3; turns += 1) exchange.live.turn();
          await new Promise(setImmediate);
        }
        wire.write('0\r\n\r\n');
        await exchange.take(wire);
        expect(texts).toEqual(['whole', '', 'onetwothree']);
        expect(bodies.map((body) => body.byteLength)).toEqual([0, 0, 11]);
      });

      test('has no limit for collectBody when that is Infinity', async () => {
        exchange.handler = (response) => {
          response.onAborted(() => {});
          response.collectBody(Number.POSITIVE_INFINITY, (body) => response.end(String(body?.byteLength)));
        };
        expect(await exchange.ask(post('x'.repeat(300_000)))).toEndWith('300000');
      });

      test('longer than collectBody allows is null, once', async () => {
        const bodies: unknown[] = [];
        exchange.handler = (response) => {
          response.onAborted(() => {});
          response.collectBody(10, (body) => bodies.push(body));
          setTimeout(() => response.writeStatus('413 Too Long').end(), 0);
        };
        const whole = await exchange.ask(post('x'.repeat(200_000)));
        expect(whole).toStartWith('HTTP/1.1 413 Too Long\r\n');
        expect(bodies).toEqual([null]);
      });

      test('waits while the response is paused, and the next request does not', async () => {
        let received = 0;
        let response: HttpResponse | undefined;
        exchange.handler = (given) => {
          response = given.onAborted(() => {});
          response.onData((chunk) => {
            received += chunk.byteLength;
          });
          expect(response.pause()).toBe(response);
        };
        const total = 4 << 20;
        const wire = await exchange.live.connect();
        wire.write(post('x'.repeat(total)));
        await exchange.live.until('the request', () => response);
        for (let turns = 0; turns < 20; turns += 1) {
          exchange.live.turn();
          await new Promise(setImmediate);
        }
        expect(received).toBeLessThan(total);
        expect(response?.resume()).toBe(response as HttpResponse);
        await exchange.live.until('the whole body', () => received === total);
        response?.pause();
        response?.end('first');
        exchange.handler = (next) => next.end('second');
        wire.write(get('/'));
        expect(await exchange.take(wire, 2)).toEndWith('second');
      });
    });
  });
}
