/** HttpRequest: what it reads from the head of a request, and that it is dead after its handler. */
import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import type { Core } from '../../../../src/core/core.ts';
import { withHandle } from '../../../../src/core/handles.ts';
import { methodNames } from '../../../../src/core/http.ts';
import { queryValue } from '../../../../src/frontend/uws/query.ts';
import { expire, HttpRequest } from '../../../../src/frontend/uws/request.ts';
import { shortText } from '../../../../src/frontend/uws/short-text.ts';
import { bytesOfArgument, latin1OfArgument, textOfArgument } from '../../../../src/frontend/uws/strings.ts';

interface Head {
  readonly target?: string;
  readonly method?: string;
  readonly fields?: readonly (readonly [name: string, value: string])[];
}

/** The head in a payload area, between what belongs to others. */
function requestOf({ target = '/', method = 'GET', fields = [] }: Head): HttpRequest {
  const host = 'localhost:9001';
  const known = Math.max(methodNames.indexOf(method as 'GET'), 0);
  const lines = known === 0 ? [[':method', method] as const, ...fields] : fields;
  const text = Buffer.from(host + target + lines.map(([name, value]) => `${name}\n${value}\n`).join(''), 'latin1');
  const payload = Buffer.concat([Buffer.from('before\nthis\n'), text, Buffer.from('x-after\nthat\n')]);
  const targetBytes = Buffer.byteLength(target, 'latin1');
  return new HttpRequest(withHandle<Core>({ payload } as Core), 0, known, 12, text.length, (host.length << 16) | targetBytes);
}

const deadSentence = 'uWS.HttpRequest must not be accessed after await or route handler return.';

describe('the target', () => {
  test('the URL has no query', () => {
    expect(requestOf({ target: '/a/b?c=d' }).getUrl()).toBe('/a/b');
    expect(requestOf({ target: '/a/b' }).getUrl()).toBe('/a/b');
    expect(requestOf({ target: '*', method: 'OPTIONS' }).url).toBe('*');
  });

  test('the whole query is given as it was sent, and undefined when there is no question mark', () => {
    expect(requestOf({ target: '/a?b=%20+&c' }).getQuery()).toBe('b=%20+&c');
    expect(requestOf({ target: '/a?' }).getQuery()).toBe('');
    expect(requestOf({ target: '/a' }).getQuery()).toBeUndefined();
  });

  test('a key may be text or bytes, and an undefined or empty one finds nothing', () => {
    const request = requestOf({ target: '/?name=value&=empty' });
    expect(request.getQuery('name')).toBe('value');
    expect(request.getQuery(Buffer.from('name'))).toBe('value');
    expect(request.getQuery(undefined)).toBeUndefined();
    expect(request.getQuery('')).toBeUndefined();
    expect(() => request.getQuery(5)).toThrow('Text and data can only be passed by String, ArrayBuffer or TypedArray.');
  });

  test('octets beyond ASCII are read as UTF-8', () => {
    expect(requestOf({ target: Buffer.from('/é').toString('latin1') }).getUrl()).toBe('/é');
  });
});

describe('one value of the query', () => {
  const valueIn = (query: string, key: string) => queryValue(`/?${query}`, 1, key);

  test.each([
    ['k=1', '1'],
    ['a=b&k=%41+%C3%A9&k=2', 'A é'],
    ['k=', ''],
    ['ak=1&k=2', '2'],
    ['&&k=1', '1'],
    ['k=a=b', 'a=b'],
    ['k=%4', undefined],
    ['k=%', undefined],
    ['k=%zz', 's'],
    ['k', undefined],
    ['a=1', undefined],
  ] as const)('%p gives %p', (query, value) => {
    expect(valueIn(query, 'k')).toBe(value);
  });

  test('a statement before it that begins alike and has no equal sign hides it', () => {
    expect(valueIn('ka&k=1', 'k')).toBeUndefined();
    expect(valueIn('a&k=1', 'k')).toBe('1');
  });

  test('what encodeURIComponent makes comes back, wherever it stands', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 20 });
    fc.assert(
      fc.property(text, text, text, (before, value, after) => {
        const query = `x=${encodeURIComponent(before)}&key=${encodeURIComponent(value)}&y=${encodeURIComponent(after)}`;
        expect(valueIn(query, 'key')).toBe(value);
      }),
    );
  });

  test('no query makes it throw', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('k', '=', '&', '%', '+', '4', 'é', '?') }), (query) => {
        expect(['string', 'undefined']).toContain(typeof valueIn(query, 'k'));
      }),
    );
  });
});

describe('header fields', () => {
  const fields = [
    ['host', 'localhost'],
    ['accept', ''],
    ['x-a', 'x-b'],
    ['x-b', '1'],
    ['x-b', '2'],
    ['x-latin', 'caf\xe9'],
  ] as const;

  test('the first of a name is given, whole and in latin1', () => {
    const request = requestOf({ fields });
    expect(request.getHeader('host')).toBe('localhost');
    expect(request.getHeader('x-b')).toBe('1');
    expect(request.getHeader('x-latin')).toBe('caf\xe9');
    expect(request.getHeader(new TextEncoder().encode('x-a'))).toBe('x-b');
  });

  test('what is not there is empty, and names are only known in lower case', () => {
    const request = requestOf({ fields });
    for (const name of ['accept', 'x', 'x-bb', 'Host', '', undefined, 'localhost', 'x-after']) expect(request.getHeader(name)).toBe('');
    expect(requestOf({}).getHeader('host')).toBe('');
  });

  test('forEach gives all in the order they came', () => {
    const seen: string[][] = [];
    const utf8 = Buffer.from('ü').toString('latin1');
    requestOf({ fields: [...fields.slice(0, 5), ['x-utf8', utf8]] }).forEach((name, value) => void seen.push([name, value]));
    expect(seen).toEqual([...fields.slice(0, 5).map((field) => [...field]), ['x-utf8', 'ü']]);
  });

  test('a method with a name of its own is no field', () => {
    const seen: string[] = [];
    const request = requestOf({ method: 'PURGE', fields });
    request.forEach((name) => void seen.push(name));
    expect(seen).toEqual(fields.map(([name]) => name));
    expect(request.getHeader(':method')).toBe('');
  });
});

describe('the method', () => {
  test.each([...methodNames.slice(1), 'PURGE', 'M-SEARCH'])('%s is given as it is and in lower case', (method) => {
    const request = requestOf({ method, fields: [['host', 'h']] });
    expect(request.getMethod()).toBe(method.toLowerCase());
    expect(request.getCaseSensitiveMethod()).toBe(method);
  });
});

describe('parameters', () => {
  const request = requestOf({ target: '/x%20y/z' });
  request.parameters = ['x%20y', 'z', 'w'];
  request.parameterNames = ['a', 'b', 'a'];

  test('are found by index', () => {
    expect([0, 1, 3, -1].map((index) => request.getParameter(index))).toEqual(['x%20y', 'z', undefined, undefined]);
  });

  test('are found by name, the last when two have the same', () => {
    expect(request.getParameter('b')).toBe('z');
    expect(request.getParameter(Buffer.from('a'))).toBe('w');
    expect(request.getParameter('c')).toBeUndefined();
    expect(() => request.getParameter({})).toThrow('Text and data can only be passed by');
  });
});

test('setYield takes anything as true or false and returns the request', () => {
  const request = requestOf({});
  expect(request.yielded).toBe(false);
  expect(request.setYield(1)).toBe(request);
  expect(request.yielded).toBe(true);
  expect(request.setYield(undefined).yielded).toBe(false);
});

test('a program may keep its own url on a request', () => {
  const request = requestOf({ target: '/a?b' }) as { url: string; getUrl(): string };
  request.url = 'mine';
  expect(request.url).toBe('mine');
  expect(request.getUrl()).toBe('/a');
});

test('after its handler every call throws', () => {
  const request = requestOf({ target: '/a?b', fields: [['host', 'h']] });
  expect(request.getUrl() + request.getHeader('host')).toBe('/ah');
  expire(request);
  const calls = [
    () => request.getUrl(),
    () => request.getHeader('host'),
    () => request.getParameter(0),
    () => request.getMethod(),
    () => request.getCaseSensitiveMethod(),
    () => request.getQuery(),
    () => request.getQuery('b'),
    () => request.forEach(() => {}),
    () => request.setYield(true),
  ];
  for (const call of calls) expect(call).toThrow(deadSentence);
});

describe('arguments that are text or bytes', () => {
  const bytes = Uint8Array.of(0xc3, 0xa9);

  test('texts, ArrayBuffers and all typed arrays are taken, of these only their own part', () => {
    const shared = new SharedArrayBuffer(2);
    new Uint8Array(shared).set(bytes);
    const part = Uint8Array.of(1, 0xc3, 0xa9, 2).subarray(1, 3);
    for (const argument of [
      'é',
      bytes,
      bytes.buffer,
      Buffer.from(bytes),
      new Int8Array(bytes.buffer),
      new Uint16Array(bytes.buffer),
      shared,
      part,
    ]) {
      expect([...bytesOfArgument(argument)]).toEqual([...bytes]);
      expect(textOfArgument(argument)).toBe('é');
      expect(latin1OfArgument(argument)).toBe('\xc3\xa9');
    }
  });

  test('undefined is empty', () => {
    expect(bytesOfArgument(undefined).length).toBe(0);
    expect(textOfArgument(undefined) + latin1OfArgument(undefined)).toBe('');
  });

  test.each([[null], [5], [true], [{}], [[1]], [new DataView(new ArrayBuffer(1))], [() => {}]])('%p is refused', (argument) => {
    expect(() => bytesOfArgument(argument)).toThrow('Text and data can only be passed by String, ArrayBuffer or TypedArray.');
  });
});

describe('short texts that are remembered', () => {
  const read = (bytes: Buffer) => shortText(Buffer.concat([Buffer.from('<'), bytes, Buffer.from('>')]), 1, bytes.length);

  test('are the same as decoded anew, in whatever order they come', () => {
    const bytes = fc.uint8Array({ maxLength: 70 }).map((array) => Buffer.from(array));
    const ascii = fc.string({ unit: fc.constantFrom('/', 'a', 'b', '?'), maxLength: 4 }).map((text) => Buffer.from(text));
    fc.assert(
      fc.property(fc.array(fc.oneof(ascii, bytes), { maxLength: 30 }), (texts) => {
        for (const text of [...texts, ...texts.toReversed()]) expect(read(text)).toBe(text.toString());
      }),
    );
  });

  test('do not take one byte beyond ASCII for a character with that number', () => {
    for (let code = 0x80; code < 0x100; code += 1) {
      const character = Buffer.from(`${String.fromCharCode(code)}`);
      expect(read(character)).toBe(String.fromCharCode(code));
      expect(read(Buffer.from([code]))).toBe('\ufffd');
    }
  });
});
