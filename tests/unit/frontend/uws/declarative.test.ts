/** DeclarativeResponse: the bytes of its instructions, and what they do when they are run. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { DeclarativeResponse, declarativeHandler } from '../../../../src/frontend/uws/declarative-response.ts';
import type { HttpRequest } from '../../../../src/frontend/uws/request.ts';
import type { HttpResponse } from '../../../../src/frontend/uws/response.ts';
import { backends } from '../../../support/live-core.ts';
import { get, UwsExchange } from '../../../support/uws-exchange.ts';

const text = (value: string) => [...Buffer.from(value)];

describe('building', () => {
  test('each instruction is an opcode and texts behind their lengths', () => {
    const handler = new DeclarativeResponse()
      .writeHeader('ab', 'é')
      .writeBody()
      .writeQueryValue('q')
      .writeHeaderValue('h')
      .write('hello')
      .writeParameterValue('p')
      .end('end');
    expect(handler).toBeInstanceOf(ArrayBuffer);
    expect([...new Uint8Array(handler)]).toEqual(
      [
        1,
        2,
        text('ab'),
        2,
        text('é'),
        2,
        3,
        1,
        text('q'),
        4,
        1,
        text('h'),
        5,
        5,
        0,
        text('hello'),
        6,
        1,
        text('p'),
        0,
        3,
        0,
        text('end'),
      ].flat(),
    );
  });

  test('long texts have their length in two bytes, low byte first', () => {
    const bytes = new Uint8Array(new DeclarativeResponse().write('x'.repeat(0x1234)).end());
    expect([...bytes.subarray(0, 3)]).toEqual([5, 0x34, 0x12]);
    expect([...bytes.subarray(-3)]).toEqual([0, 0, 0]);
  });

  test('a text whose length does not fit is refused', () => {
    expect(() => new DeclarativeResponse().writeHeader('x', 'y'.repeat(256))).toThrow(RangeError);
    expect(() => new DeclarativeResponse().write('x'.repeat(65536))).toThrow(RangeError);
    expect(() => new DeclarativeResponse().end('x'.repeat(65536))).toThrow(RangeError);
  });
});

/** What instructions call on the response. */
function callsOf(instructions: ArrayBuffer): string[] {
  const calls: string[] = [];
  const note =
    (what: string) =>
    (...values: Uint8Array[]) =>
      calls.push([what, ...values.map((value) => Buffer.from(value ?? '').toString())].join(' '));
  const response = { writeHeader: note('header'), write: note('write'), end: note('end') } as unknown as HttpResponse;
  const request = { getQuery: () => 'Q', getHeader: () => 'H', getParameter: () => undefined } as unknown as HttpRequest;
  declarativeHandler(instructions)(response, request);
  return calls;
}

describe('reading', () => {
  test('instructions run in order, those after the end are left out', () => {
    const whole = new DeclarativeResponse()
      .writeHeader('a', 'b')
      .writeQueryValue('q')
      .writeHeaderValue('h')
      .writeBody()
      .writeParameterValue('p');
    const bytes = [...new Uint8Array(whole.end('x')), 5, 1, 0, 65];
    expect(callsOf(new Uint8Array(bytes).buffer)).toEqual(['header a b', 'write Q', 'write H', 'write ', 'end x']);
  });

  test('reading stops at what cannot be read, however it is cut off', () => {
    const whole = new Uint8Array(new DeclarativeResponse().writeHeader('a', 'b').write('c').end('d'));
    const all = callsOf(whole.buffer);
    for (let length = 0; length < whole.length; length += 1) {
      const calls = callsOf(whole.slice(0, length).buffer);
      expect(calls).toEqual(all.slice(0, calls.length));
      expect(calls).not.toContain('end d');
    }
    expect(callsOf(Uint8Array.of(99, 5, 1, 0, 65).buffer)).toEqual([]);
  });

  test('later changes of the buffer change nothing', () => {
    const calls: Uint8Array[] = [];
    const instructions = new DeclarativeResponse().end('x');
    const run = declarativeHandler(instructions);
    new Uint8Array(instructions).fill(0xff);
    run({ end: (body: Uint8Array) => calls.push(body) } as unknown as HttpResponse, {} as HttpRequest);
    expect(calls.map((body) => Buffer.from(body).toString())).toEqual(['x']);
  });
});

for (const backend of backends) {
  describe(`on the wire, with ${backend}`, () => {
    let exchange: UwsExchange;
    beforeAll(() => {
      exchange = new UwsExchange(backend);
    });
    afterAll(() => exchange.destroy());

    test('a response of one text has a length', async () => {
      exchange.handler = declarativeHandler(new DeclarativeResponse().writeHeader('x', 'y').end('hello'));
      expect(await exchange.ask(get('/'))).toBe('HTTP/1.1 200 OK\r\nx: y\r\nContent-Length: 5\r\n\r\nhello');
    });

    test('values of the request become chunks, those that are missing none', async () => {
      const run = declarativeHandler(
        new DeclarativeResponse()
          .writeQueryValue('q')
          .writeQueryValue('no')
          .writeHeaderValue('x-h')
          .writeParameterValue('name')
          .write('!')
          .end('.'),
      );
      exchange.handler = (response, request) => {
        request.parameters = ['p'];
        request.parameterNames = ['name'];
        run(response, request);
      };
      expect(await exchange.ask(get('/?q=a%20b', 'X-H: v\r\n'))).toBe(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na b\r\n1\r\nv\r\n1\r\np\r\n1\r\n!\r\n1\r\n.\r\n0\r\n\r\n',
      );
    });

    test('instructions without an end are answered with 500, as a silent handler is', async () => {
      exchange.handler = declarativeHandler(new ArrayBuffer(0));
      expect(await exchange.ask(get('/'))).toStartWith('HTTP/1.1 500 Internal Server Error\r\n');
      expect(exchange.reports.at(-1)).toContain('without responding or attaching an abort handler');
    });
  });
}
