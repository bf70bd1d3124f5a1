/** HttpResponse over a real core: what a client sees, what handlers are told, and what a dead response does. */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { HttpResponse } from '../../../../src/frontend/uws/response.ts';
import { handshake } from '../../../support/frames.mjs';
import { backends } from '../../../support/live-core.ts';
import { get, UwsExchange } from '../../../support/uws-exchange.ts';

const deadSentence = 'uWS.HttpResponse must not be accessed after uWS.HttpResponse.onAborted callback, or after a successful response.';
const typeSentence = 'Text and data can only be passed by String, ArrayBuffer or TypedArray.';

const text = (buffer: ArrayBuffer | Uint8Array) => Buffer.from(buffer as Uint8Array).toString('latin1');

for (const backend of backends) {
  describe(`with ${backend}`, () => {
    let exchange: UwsExchange;

    beforeEach(() => {
      exchange = new UwsExchange(backend);
    });
    afterEach(() => exchange.destroy());

    const answer = (handler: (response: HttpResponse) => unknown, request = get('/')) => exchange.answer(handler, request);

    describe('the head', () => {
      test('is 200 OK by default, and a body of text is UTF-8', async () => {
        expect(await answer((response) => response.end('é'))).toBe('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xc3\xa9');
      });

      test('has the status as it was given', async () => {
        expect(await answer((response) => response.writeStatus('404 Not Here').end())).toBe(
          'HTTP/1.1 404 Not Here\r\nContent-Length: 0\r\n\r\n',
        );
      });

      test('has each value as it was given, although those written before are remembered', async () => {
        const values = ['é', '\xc3\xa9', 'e', 'é', 'e'];
        for (const value of values) {
          const octets = Buffer.from(value).toString('latin1');
          expect(await answer((response) => response.writeHeader('X-Value', value).end())).toContain(`\r\nX-Value: ${octets}\r\n`);
        }
      });

      test('has the first status, and a header before it has said 200', async () => {
        const first = await answer((response) => response.writeStatus('201 Created').writeStatus('404 No').end());
        expect(first).toStartWith('HTTP/1.1 201 Created\r\n');
        const late = await answer((response) => response.writeHeader('a', 'b').writeStatus('404 No').end());
        expect(late).toBe('HTTP/1.1 200 OK\r\na: b\r\nContent-Length: 0\r\n\r\n');
      });

      test('has the headers in their order and spelling, bytes as they are and text as UTF-8', async () => {
        const head = await answer((response) =>
          response
            .writeHeader('X-One', '1')
            .writeHeader(Buffer.from('x-one'), Uint8Array.of(0xe9))
            .writeHeader('x-text', 'é')
            .writeHeader('empty', '')
            .end(),
        );
        expect(head).toBe('HTTP/1.1 200 OK\r\nX-One: 1\r\nx-one: \xe9\r\nx-text: \xc3\xa9\r\nempty: \r\nContent-Length: 0\r\n\r\n');
      });

      test('keeps one Content-Length, Date and Transfer-Encoding, whatever a program writes', async () => {
        const head = await answer((response) =>
          response.writeHeader('Content-Length', '99').writeHeader('transfer-encoding', 'chunked').writeHeader('DATE', 'never').end('abc'),
        );
        expect(head).toBe('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc');
      });

      test('passes Connection on, and ends the connection when it says close', async () => {
        expect(await answer((response) => response.writeHeader('Connection', 'keep-alive').end())).toContain(
          '\r\nConnection: keep-alive\r\n',
        );
        const wire = await exchange.live.connect();
        exchange.handler = (response) => response.writeHeader('connection', 'Close').end('x');
        wire.write(get('/'));
        await exchange.live.during(wire.untilEnded());
        expect(await exchange.take(wire)).toBe('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx');
      });

      test('refuses what would break it, and leaves it as it was', async () => {
        const whole = await answer((response) => {
          response.writeHeader('a', 'b');
          for (const [name, value] of [
            ['a\r\nb', 'c'],
            ['a', 'c\r\nd: e'],
            ['a', Uint8Array.of(10)],
            ['a', 'nul\0'],
            ['a b', 'c'],
            ['a:', 'c'],
            ['', 'c'],
          ] as const) {
            expect(() => response.writeHeader(name, value)).toThrow(/header/);
          }
          response.end();
        });
        expect(whole).toBe('HTTP/1.1 200 OK\r\na: b\r\nContent-Length: 0\r\n\r\n');
      });

      test('refuses a status without a number, or with more than a line', async () => {
        await answer((response) => {
          for (const status of ['', 'OK', '20', '2000 OK', '200 O\r\nK', `200 ${'x'.repeat(300)}`]) {
            expect(() => response.writeStatus(status)).toThrow(/status/);
          }
          response.end();
        });
      });

      test('takes text or bytes and nothing else', async () => {
        await answer((response) => {
          expect(() => response.writeHeader('a', 5 as never)).toThrow(typeSentence);
          expect(() => response.writeStatus(200 as never)).toThrow(typeSentence);
          expect(() => response.end(null as never)).toThrow(typeSentence);
          expect(() => response.write({} as never)).toThrow(typeSentence);
          response.end();
        });
      });

      test('cannot be written once the body has begun', async () => {
        const whole = await answer((response) => {
          response.write('a');
          expect(response.writeStatus('404 No')).toBe(response);
          expect(() => response.writeHeader('a', 'b')).toThrow('a header cannot be written once the body has begun');
          response.end();
        });
        expect(whole).toBe('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n');
      });
    });

    describe('the body', () => {
      test('may be an ArrayBuffer, a typed array, or large', async () => {
        const large = new Uint8Array(300_000).fill(0x61);
        expect(await answer((response) => response.end(Uint8Array.of(1, 65, 2).subarray(1, 2)))).toEndWith('Content-Length: 1\r\n\r\nA');
        expect(await answer((response) => response.end(new Uint16Array([0x4241]).buffer))).toEndWith('\r\n\r\nAB');
        expect((await answer((response) => response.writeStatus('202 Taken').end(large))).length).toBe(
          'HTTP/1.1 202 Taken\r\nContent-Length: 300000\r\n\r\n'.length + 300_000,
        );
      });

      test('is chunked when it is written in parts; empty parts are none', async () => {
        const whole = await answer((response) => {
          expect(response.write('')).toBe(true);
          expect(response.write('abc')).toBe(true);
          expect(response.write(new ArrayBuffer(0))).toBe(true);
          expect(response.getWriteOffset()).toBe(0);
          response.end('de');
        });
        expect(whole).toBe('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n');
      });

      test('ends the connection on request, also after parts', async () => {
        for (const [body, handler] of [
          ['x', (response: HttpResponse) => response.end('x', true)],
          ['', (response: HttpResponse) => response.endWithoutBody(undefined, true)],
          ['1\r\nx\r\n0\r\n\r\n', (response: HttpResponse) => response.write('x') && response.end('', true)],
        ] as const) {
          const wire = await exchange.live.connect();
          exchange.handler = handler;
          wire.write(get('/'));
          await exchange.live.during(wire.untilEnded());
          expect(await exchange.take(wire)).toEndWith(`\r\n\r\n${body}`);
        }
      });

      test('is left out of an answer to HEAD, whose length is that of GET', async () => {
        const head = (handler: (response: HttpResponse) => unknown) => answer(handler, get('/', '', 'HEAD'));
        expect(await head((response) => response.end('hello'))).toBe('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n');
        expect(await head((response) => response.endWithoutBody(77))).toBe('HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n');
        expect(await head((response) => response.writeHeader('Content-Length', '88').end())).toBe(
          'HTTP/1.1 200 OK\r\nContent-Length: 88\r\n\r\n',
        );
        expect(await head((response) => response.endWithoutBody())).toBe('HTTP/1.1 200 OK\r\n\r\n');
        expect(await head((response) => response.tryEnd('', 99))).toBe('HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n');
        const tried = await head((response) => expect(response.tryEnd('x'.repeat(50_000), 50_000)).toEqual([true, true]));
        expect(tried).toBe('HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n');
        expect(await head((response) => response.write('abc') && response.end())).toBe(
          'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
        );
      });

      test('is left out where the status allows none', async () => {
        for (const status of ['204 No Content', '304 Not Modified']) {
          for (const handler of [
            (response: HttpResponse) => response.writeStatus(status).end('never'),
            (response: HttpResponse) => response.writeStatus(status).write('never') && response.end('never'),
            (response: HttpResponse) => expect(response.writeStatus(status).tryEnd('x'.repeat(20_000), 20_000)).toEqual([true, true]),
            (response: HttpResponse) => response.writeStatus(status).endWithoutBody(5),
          ]) {
            expect(await answer(handler)).toBe(`HTTP/1.1 ${status}\r\n\r\n`);
          }
        }
      });

      test('of no bytes never claims any to a client that would wait for them', async () => {
        expect(await answer((response) => response.endWithoutBody(5))).toBe('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
      });

      test('leaves the connection to the requests behind it', async () => {
        let count = 0;
        exchange.handler = (response) => {
          count += 1;
          if (count === 2) response.write('two');
          response.end(count === 1 ? 'one' : '');
        };
        const all = await exchange.ask(get('/').repeat(3), 3);
        expect(all).toBe(
          'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none' +
            'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n' +
            'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
        );
      });
    });

    describe('tryEnd', () => {
      test('sends a small body at once, and without a total it is all', async () => {
        expect(await answer((response) => expect(response.tryEnd('abc')).toEqual([true, true]))).toEndWith('Content-Length: 3\r\n\r\nabc');
        expect(await answer((response) => expect(response.tryEnd('abc', 3)).toEqual([true, true]))).toEndWith(
          'Content-Length: 3\r\n\r\nabc',
        );
      });

      test('counts the parts of a body, and cuts off what is beyond its total', async () => {
        const whole = await answer((response) => {
          response.onAborted(() => {});
          expect(response.tryEnd('abc', 5)).toEqual([true, false]);
          expect(response.getWriteOffset()).toBe(3);
          expect(response.tryEnd('', 5)).toEqual([true, false]);
          expect(response.tryEnd('defgh', 5)).toEqual([true, true]);
          expect(() => response.getWriteOffset()).toThrow(deadSentence);
        });
        expect(whole).toBe('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde');
      });

      test('may be finished by end', async () => {
        const whole = await answer((response) => {
          response.onAborted(() => {});
          response.tryEnd('abc', 5);
          response.end('de');
        });
        expect(whole).toBe('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde');
      });

      test('after write ends the chunked body', async () => {
        const whole = await answer((response) => response.write('a') && expect(response.tryEnd('b', 100)).toEqual([true, true]));
        expect(whole).toEndWith('\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n');
      });

      test('takes what the client takes, and goes on from the offset when it is writable', async () => {
        const total = 8 << 20;
        const body = new Uint8Array(total).map((_, index) => index % 251);
        const offsets: number[] = [];
        let isComplete = false;
        exchange.handler = (response) => {
          response.onAborted(() => {});
          response.onWritable((offset) => {
            expect(offset).toBe(response.getWriteOffset());
            offsets.push(offset);
            const [ok, done] = response.tryEnd(body.subarray(offset), total);
            isComplete = done;
            return ok;
          });
          const [ok, done] = response.tryEnd(body, total);
          expect([ok, done]).toEqual([false, false]);
          expect(response.getWriteOffset()).toBeLessThan(total);
        };
        const wire = await exchange.live.connect();
        wire.socket.pause();
        wire.write(get('/'));
        await exchange.live.until('a request', () => exchange.open.size === 1);
        wire.socket.resume();
        await exchange.live.until('the whole body', () => isComplete);
        await exchange.live.until('all bytes', () => wire.receivedBytes > total);
        expect(offsets.length).toBeGreaterThan(0);
        expect(offsets).toEqual(offsets.toSorted((a, b) => a - b));
        await exchange.live.during(wire.head());
        expect(Buffer.compare(wire.received, body)).toBe(0);
      });
    });

    test('write tells of backpressure, and onWritable of its end', async () => {
      let writable = 0;
      let refused = 0;
      let response: HttpResponse | undefined;
      exchange.handler = (given) => {
        response = given.onAborted(() => {}).onWritable(() => ++writable > 0);
      };
      const wire = await exchange.live.connect();
      wire.socket.pause();
      wire.write(get('/'));
      await exchange.live.until('the response', () => response);
      const chunk = 'x'.repeat(1 << 20);
      for (let count = 0; count < 32 && refused === 0; count += 1) {
        if (!response?.write(chunk)) refused += 1;
      }
      expect(refused).toBe(1);
      expect(writable).toBe(0);
      wire.socket.resume();
      await exchange.live.until('onWritable', () => writable > 0);
      response?.end();
      await exchange.live.until('the end of the body', () => wire.received.includes('\r\n0\r\n\r\n'));
    });

    describe('an end that nobody wished for', () => {
      test('close calls onAborted before it returns, and ends the connection', async () => {
        const order: string[] = [];
        exchange.handler = (response) => {
          response.onAborted(() => {
            order.push('aborted');
            expect(() => response.end()).toThrow(deadSentence);
          });
          expect(response.close()).toBe(response);
          order.push('closed');
          expect(() => response.close()).toThrow(deadSentence);
        };
        const wire = await exchange.live.connect();
        wire.write(get('/'));
        await exchange.live.during(wire.untilEnded());
        expect(order).toEqual(['aborted', 'closed']);
        expect(wire.received.length).toBe(0);
        expect(exchange.open.size).toBe(0);
      });

      test('a client that leaves is told of by onAborted, once', async () => {
        let aborted = 0;
        let response: HttpResponse | undefined;
        exchange.handler = (given) => {
          response = given.onAborted(() => aborted++);
        };
        const wire = await exchange.live.connect();
        wire.write(get('/'));
        await exchange.live.until('the response', () => response);
        wire.reset();
        await exchange.live.until('onAborted', () => aborted > 0);
        expect(() => response?.write('x')).toThrow(deadSentence);
        for (let turns = 0; turns < 5; turns += 1) exchange.live.turn();
        expect(aborted).toBe(1);
        expect(exchange.open.size).toBe(0);
      });

      test('a handler that answers nothing and listens for nothing is reported, and answered for', async () => {
        const whole = await answer((response) => response.writeStatus('202 Soon').writeHeader('a', 'b') && undefined, get('/path?query'));
        expect(whole).toBe(
          'HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\r\nInternal Server Error',
        );
        expect(exchange.reports).toEqual([
          'Returning from a request handler without responding or attaching an abort handler is forbidden!\n\tMethod: "GET"\n\tURL: "/path"',
        ]);
      });

      test('a handler that throws or rejects is reported and answered with 500', async () => {
        const thrown = await answer(() => {
          throw new Error('at once');
        });
        expect(thrown).toStartWith('HTTP/1.1 500 Internal Server Error\r\n');
        const rejected = await answer(async (response) => {
          response.onAborted(() => {});
          await null;
          throw new Error('later');
        });
        expect(rejected).toStartWith('HTTP/1.1 500 Internal Server Error\r\n');
        const inBody = await answer(
          (response) => {
            response.onAborted(() => {});
            response.onData(() => {
              throw new Error('in the body');
            });
          },
          `${get('/', 'Content-Length: 1\r\n', 'POST')}x`,
        );
        expect(inBody).toStartWith('HTTP/1.1 500 Internal Server Error\r\n');
        expect(exchange.reports).toEqual(['at once', 'later', 'in the body']);
      });

      test('a handler that fails after its answer is only reported', async () => {
        const whole = await answer(async (response) => {
          response.end('fine');
          await null;
          throw new Error('after');
        });
        expect(whole).toEndWith('fine');
        await exchange.live.until('the report', () => exchange.reports.length === 1);
        expect(exchange.reports).toEqual(['after']);
      });

      test('a handler that fails within a body breaks it off, and onAborted is called', async () => {
        let aborted = 0;
        const wire = await exchange.live.connect();
        exchange.handler = (response) => {
          response.onAborted(() => aborted++);
          response.write('part');
          throw new Error('broken');
        };
        wire.write(get('/'));
        await exchange.live.during(wire.untilEnded());
        expect(wire.received.toString()).not.toContain('0\r\n\r\n');
        expect([aborted, ...exchange.reports]).toEqual([1, 'broken']);
      });

      test('an onAborted handler that throws is reported', async () => {
        exchange.handler = (response) => {
          response.onAborted(() => {
            throw new Error('in onAborted');
          });
          response.close();
        };
        const wire = await exchange.live.connect();
        wire.write(get('/'));
        await exchange.live.during(wire.untilEnded());
        expect(exchange.reports).toEqual(['in onAborted']);
      });
    });

    test('once it is over, every call throws', async () => {
      let response: HttpResponse | undefined;
      await answer((given) => {
        response = given;
        expect(given.end('x', false)).toBe(given);
      });
      const over = response as HttpResponse;
      const calls = [
        () => over.writeStatus('200 OK'),
        () => over.writeHeader('a', 'b'),
        () => over.write('x'),
        () => over.end(),
        () => over.endWithoutBody(),
        () => over.tryEnd('x', 1),
        () => over.close(),
        () => over.getWriteOffset(),
        () => over.onWritable(() => true),
        () => over.onAborted(() => {}),
        () => over.onData(() => {}),
        () => over.onDataV2(() => {}),
        () => over.collectBody(1, () => {}),
        () => over.pause(),
        () => over.resume(),
        () => over.cork(() => {}),
        () => over.upgrade(1),
        () => over.getRemoteAddress(),
        () => over.getRemoteAddressAsText(),
        () => over.getRemotePort(),
        () => over.getProxiedRemoteAddress(),
        () => over.getProxiedRemoteAddressAsText(),
        () => over.getProxiedRemotePort(),
      ];
      for (const call of calls) expect(call).toThrow(deadSentence);
    });

    test('cork runs its callback at once, and what that throws comes out', async () => {
      const whole = await answer((response) => {
        expect(() =>
          response.cork(() => {
            throw new Error('in cork');
          }),
        ).toThrow('in cork');
        expect(() => response.cork(5 as never)).toThrow('Passed callback is not a valid function.');
        expect(response.cork(() => response.writeHeader('a', 'b').end('x'))).toBe(response);
      });
      expect(whole).toBe('HTTP/1.1 200 OK\r\na: b\r\nContent-Length: 1\r\n\r\nx');
    });

    test('upgrade takes exactly five arguments, and hands on the headers written before', async () => {
      const context = {};
      const userData = { a: 1 };
      await answer((response) => {
        response.writeStatus('101 Switching Protocols').writeHeader('x', 'y');
        expect(response.upgrade(userData, 'key', '', '')).toBeUndefined();
        expect(() => response.upgrade(userData, 5, '', '', context)).toThrow(typeSentence);
        expect(exchange.upgrades).toEqual([]);
        response.upgrade(userData, 'key', Buffer.from([0xe9]), undefined, context);
        expect(() => response.end()).toThrow(deadSentence);
        exchange.live.core.terminate(response.slot, response.generation);
      }, handshake('/'));
      expect(exchange.upgrades).toEqual([[userData, 'key', '\xe9', '', 'x: y\r\n', context]]);
      expect(exchange.open.size).toBe(0);
    });

    test('tells where the client is', async () => {
      await answer((response) => {
        expect([...new Uint8Array(response.getRemoteAddress())]).toEqual([127, 0, 0, 1]);
        expect(text(response.getRemoteAddressAsText())).toBe('127.0.0.1');
        expect(response.getRemotePort()).toBeGreaterThan(0);
        expect(response.getProxiedRemoteAddress().byteLength).toBe(0);
        expect(response.getProxiedRemoteAddressAsText().byteLength).toBe(0);
        expect(response.getProxiedRemotePort()).toBe(0);
        response.end();
      });
    });

    test('a response for a filter knows its client, may close, and does nothing else', async () => {
      let aborted = 0;
      const wire = await exchange.live.connect();
      exchange.handler = (response) => {
        response.onAborted(() => aborted++);
        const filtered = new HttpResponse(exchange.host, response.slot, response.generation, -1, 0);
        expect(text(filtered.getRemoteAddressAsText())).toBe('127.0.0.1');
        expect(() => filtered.end()).toThrow(deadSentence);
        filtered.close();
      };
      wire.write(get('/'));
      await exchange.live.during(wire.untilEnded());
      await exchange.live.until('onAborted of the request', () => aborted === 1);
      expect(wire.received.length).toBe(0);
    });

    test('shows only what a program has attached, and does not mix it up with its own', async () => {
      const whole = await answer((response) => {
        expect(Object.keys(response)).toEqual([]);
        expect(response.constructor.name).toBe('uWS.HttpResponse');
        const open = response as unknown as Record<string, unknown>;
        Object.assign(open, { id: 7, slot: 'mine', request: { mine: true }, state: 'x' });
        expect(Object.keys(response)).toEqual(['id', 'slot', 'request', 'state']);
        response.end(String(open.slot));
      });
      expect(whole).toEndWith('mine');
      expect(exchange.open.size).toBe(0);
    });
  });
}
