/** getParts: multipart bodies into fields, and nothing worse than fewer fields out of bad ones. */
import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { getParts } from '../../../../src/frontend/uws/multipart.ts';

const type = 'multipart/form-data; boundary=XX';

function shown(body: string | Uint8Array, contentType = type): unknown {
  return getParts(body as string, contentType)?.map(({ data, ...rest }) => ({ ...rest, data: Buffer.from(data).toString('latin1') }));
}

const part = (disposition: string, data: string, more = '') => `--XX\r\nContent-Disposition: ${disposition}\r\n${more}\r\n${data}\r\n`;

describe('a good body', () => {
  test('gives name, file name, type and data of each part', () => {
    const body =
      part('form-data; name="a"', 'one') +
      part('form-data; name="file"; filename="x.txt"', 'two\r\nlines', 'Content-Type: text/plain; charset=utf-8\r\n') +
      '--XX--\r\n';
    expect(shown(body)).toEqual([
      { name: 'a', data: 'one' },
      { name: 'file', filename: 'x.txt', type: 'text/plain; charset=utf-8', data: 'two\r\nlines' },
    ]);
  });

  test('may be text, bytes or an ArrayBuffer, and is left as it is', () => {
    const body = Buffer.from(`${part('form-data; name=plain', '\0\xff')}--XX--`, 'latin1');
    const before = Buffer.from(body);
    const expected = [{ name: 'plain', data: '\0\xff' }];
    expect(shown(body)).toEqual(expected);
    expect(getParts(new Uint8Array(body).buffer, Buffer.from(type))).toHaveLength(1);
    expect(body).toEqual(before);
  });

  test('has each data in an ArrayBuffer of its own', () => {
    const [field] = getParts(`${part('form-data; name="a"', 'data')}--XX--`, type) ?? [];
    expect(field?.data).toBeInstanceOf(ArrayBuffer);
    expect(field?.data.byteLength).toBe(4);
  });

  test('may have empty data, names in UTF-8, and text before the first boundary', () => {
    expect(shown(Buffer.from(`preamble\r\n${part('form-data; name="é"; filename=""', '')}--XX--`))).toEqual([
      { name: 'é', filename: '', data: '' },
    ]);
  });

  test('may have header names in any case and parts without headers', () => {
    expect(shown(`--XX\r\ncONTENT-dISPOSITION:form-data;name=n\r\n\r\nv\r\n--XX\r\n\r\nbare\r\n--XX--`)).toEqual([
      { name: 'n', data: 'v' },
      { data: 'bare' },
    ]);
  });

  test('may have its boundary in quotes, and other parameters around it', () => {
    const body = `${part('form-data; name="a"', '1')}--XX--`;
    for (const contentType of [
      'multipart/form-data; boundary="XX"',
      'multipart/form-data; charset=utf-8; boundary=XX',
      'multipart/mixed;Boundary=XX; a=b',
    ]) {
      expect(shown(body, contentType)).toEqual([{ name: 'a', data: '1' }]);
    }
  });
});

describe('a body that is not good', () => {
  test('of another type gives undefined', () => {
    const long = 'x'.repeat(71);
    for (const contentType of [
      '',
      'text/plain',
      'multipart/form-data',
      'multipart/form-data; boundary=',
      `multipart/form-data; boundary=${long}`,
    ])
      expect(getParts('--XX--', contentType)).toBeUndefined();
  });

  test('without a boundary, or with one alone, has no parts', () => {
    expect(shown('nothing')).toEqual([]);
    expect(shown('')).toEqual([]);
    expect(shown('--XX')).toEqual([]);
    expect(shown('--XX--XX')).toEqual([]);
  });

  test('keeps the parts before the one that cannot be read', () => {
    const good = part('form-data; name="a"', '1');
    expect(shown(`${good}--XX\r\nno end of headers\r\n--XX--`)).toEqual([{ name: 'a', data: '1' }]);
    expect(shown(`${good}${part('form-data; name="b"', 'cut off')}`)).toEqual([{ name: 'a', data: '1' }]);
    expect(shown(`${good}${part('form-data; name="b"', '2', 'x: y\r\n'.repeat(10))}--XX--`)).toEqual([{ name: 'a', data: '1' }]);
  });

  test('never throws, and gives no more data than it has', () => {
    const piece = fc.constantFrom(
      '--XX',
      '\r\n',
      '\r\n\r\n',
      ':',
      ';',
      '"',
      '=',
      'name',
      'Content-Disposition: ',
      'form-data',
      'a',
      '\r',
      '\0',
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        const body = pieces.join('');
        const parts = getParts(body, type) ?? [];
        expect(parts.reduce((sum, { data }) => sum + data.byteLength, 0)).toBeLessThanOrEqual(body.length);
      }),
    );
  });

  test('refuses arguments that are neither text nor bytes', () => {
    expect(() => getParts(5 as never, type)).toThrow('Text and data can only be passed by String, ArrayBuffer or TypedArray.');
    expect(() => getParts('', null as never)).toThrow('Text and data can only be passed by');
  });
});

test('fields of any data come back as they were', () => {
  const name = fc.string({ unit: fc.constantFrom('a', 'b', ' ', ';', '=', 'ü', '.'), minLength: 1 });
  fc.assert(
    fc.property(fc.array(fc.tuple(name, fc.uint8Array({ maxLength: 40 }))), (fields) => {
      const boundary = 'q7Zz0-boundary';
      const chunks = fields.flatMap(([key, data]) => [
        Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="${key}"\r\n\r\n`),
        data,
        Buffer.from('\r\n'),
      ]);
      const body = Buffer.concat([...chunks, Buffer.from(`--${boundary}--\r\n`)]);
      const parts = getParts(body, `multipart/form-data; boundary=${boundary}`) ?? [];
      expect(parts.map((field) => [field.name, [...new Uint8Array(field.data)]])).toEqual(fields.map(([key, data]) => [key, [...data]]));
    }),
  );
});
