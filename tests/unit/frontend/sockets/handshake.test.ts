import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { eventFlag } from '../../../../ffi/layout.ts';
import type { RequestHead } from '../../../../src/core/http.ts';
import { checkOrigin, chooseProtocol } from '../../../../src/frontend/sockets/handshake.ts';

function head(host: string, fields: readonly (readonly [name: string, value: string])[], target = '/echo'): RequestHead {
  const block = fields.map(([name, value]) => `${name}\n${value}\n`).join('');
  const raw = `${host}${target}${block}`;
  return { slot: 0, generation: 1, request: 0, listener: 0, flags: 2, method: 1, raw, hostBytes: host.length, targetBytes: target.length };
}

function isSameHost(host: string, ...origins: string[]): boolean {
  const request = head(
    host,
    origins.map((origin) => ['origin', origin] as const),
  );
  return checkOrigin(request, 'same-host') === undefined;
}

describe('checkOrigin', () => {
  test('a request without Origin is not from a page and passes', () => {
    for (const allowed of ['any', 'same-host', [], ['https://a.example']] as const)
      expect(checkOrigin(head('a.example', []), allowed)).toBeUndefined();
  });

  test("'any' lets every origin pass", () => {
    for (const origin of ['https://evil.example', 'null', 'not an origin', ''])
      expect(checkOrigin(head('a.example', [['origin', origin]]), 'any')).toBeUndefined();
  });

  test('a list holds exact origins: scheme, host and port', () => {
    const allowed = ['https://a.example', 'http://localhost:3000', 'http://[::1]:8080'];
    for (const origin of allowed) expect(checkOrigin(head('b.example', [['origin', origin]]), allowed)).toBeUndefined();
    const others = ['http://a.example', 'https://a.example:8443', 'https://a.example.evil.example', 'https://sub.a.example', 'null', ''];
    for (const origin of others)
      expect(checkOrigin(head('a.example', [['origin', origin]]), allowed)).toBe('Forbidden: origin not allowed');
  });

  test('an empty list refuses every page', () => {
    expect(checkOrigin(head('a.example', [['origin', 'https://a.example']]), [])).toBe('Forbidden: origin not allowed');
  });

  test('same-host compares host and port, without regard to case', () => {
    expect(isSameHost('a.example', 'https://a.example')).toBeTrue();
    expect(isSameHost('A.Example', 'https://a.eXample')).toBeTrue();
    expect(isSameHost('a.example:8080', 'http://a.example:8080')).toBeTrue();
    expect(isSameHost('a.example:8080', 'http://a.example')).toBeFalse();
    expect(isSameHost('a.example', 'http://a.example:8080')).toBeFalse();
    expect(isSameHost('a.example', 'https://b.example')).toBeFalse();
    expect(isSameHost('a.example', 'https://a.example.evil.example')).toBeFalse();
    expect(checkOrigin(head('a.example', [['origin', 'https://b.example']]), 'same-host')).toBe('Forbidden: the page is not of this host');
  });

  test('same-host knows the default ports, written or not, on either side', () => {
    for (const host of ['a.example', 'a.example:80', 'a.example:443'])
      for (const origin of [
        'http://a.example',
        'https://a.example',
        'http://a.example:80',
        'https://a.example:443',
        'http://a.example:443',
      ])
        expect(isSameHost(host, origin)).toBeTrue();
    expect(isSameHost('a.example:4433', 'https://a.example:443')).toBeFalse();
  });

  test('same-host with IPv6 addresses, in any spelling, and IPv4', () => {
    expect(isSameHost('[::1]:8080', 'http://[::1]:8080')).toBeTrue();
    expect(isSameHost('[0:0:0:0:0:0:0:1]:8080', 'http://[::1]:8080')).toBeTrue();
    expect(isSameHost('[2001:DB8::443]', 'https://[2001:db8::443]')).toBeTrue();
    expect(isSameHost('[2001:db8::443]', 'https://[2001:db8::]')).toBeFalse();
    expect(isSameHost('[::1]', 'http://[::2]')).toBeFalse();
    expect(isSameHost('127.0.0.1:8080', 'http://127.0.0.1:8080')).toBeTrue();
  });

  test('same-host refuses null, what is no URL, and origins without a host, also when the request has none', () => {
    for (const origin of ['null', '', 'a.example', 'https://', 'file://', 'data:text/html,x']) {
      expect(isSameHost('a.example', origin)).toBeFalse();
      expect(isSameHost('', origin)).toBeFalse();
    }
  });

  test('with several Origin fields each must be allowed', () => {
    expect(isSameHost('a.example', 'https://a.example', 'https://evil.example')).toBeFalse();
    expect(isSameHost('a.example', 'https://evil.example', 'https://a.example')).toBeFalse();
    expect(isSameHost('a.example', 'https://a.example', 'https://a.example')).toBeTrue();
    const both = [
      ['origin', 'https://a.example'],
      ['origin', 'https://b.example'],
    ] as const;
    expect(checkOrigin(head('a.example', both), ['https://a.example'])).toBe('Forbidden: origin not allowed');
    expect(checkOrigin(head('a.example', both), ['https://a.example', 'https://b.example'])).toBeUndefined();
  });

  test('a value that is called origin is no Origin field', () => {
    const fields = [
      ['x-note', 'origin'],
      ['x-more', 'https://evil.example'],
      ['x-empty', ''],
      ['origin', 'https://a.example'],
    ] as const;
    expect(checkOrigin(head('a.example', fields), 'same-host')).toBeUndefined();
    expect(checkOrigin(head('a.example', fields.slice(0, 3)), [])).toBeUndefined();
  });

  test('same-host: no origin of another host passes, whatever its scheme and port', () => {
    const label = fc.stringMatching(/^[a-z]([a-z0-9-]{0,6}[a-z0-9])?$/);
    const name = fc.tuple(label, label).map((labels) => `${labels.join('.')}.test`);
    const port = fc.option(fc.integer({ min: 1, max: 65535 }), { nil: undefined });
    const isDefault = (value: number | undefined) => value === undefined || value === 80 || value === 443;
    fc.assert(
      fc.property(name, name, port, port, fc.constantFrom('http', 'https'), (host, other, hostPort, originPort, scheme) => {
        const at = (text: string, value: number | undefined) => (value === undefined ? text : `${text}:${value}`);
        const samePort = hostPort === originPort || (isDefault(hostPort) && isDefault(originPort));
        expect(isSameHost(at(host, hostPort), `${scheme}://${at(host, originPort)}`)).toBe(samePort);
        expect(isSameHost(at(host, hostPort), `${scheme}://${at(other, originPort)}`)).toBe(samePort && host === other);
      }),
    );
  });
});

describe('checkOrigin behind proxies', () => {
  const { requestXForwarded, requestForwarded } = eventFlag;
  type Fields = Readonly<Record<string, string>>;
  const isSame = (flag: number, host: string, fields: Fields, origin: string) => {
    const request = head(host, [...Object.entries(fields), ['origin', origin]]);
    return checkOrigin({ ...request, flags: request.flags | flag }, 'same-host') === undefined;
  };

  test('X-Forwarded-Host of a trusted proxy stands for Host; of anybody else nothing is read', () => {
    const fields = { 'x-forwarded-host': 'a.example:8443' };
    expect(isSame(requestXForwarded, 'inside:8080', fields, 'https://a.example:8443')).toBeTrue();
    expect(isSame(requestXForwarded, 'inside:8080', fields, 'https://a.example')).toBeFalse();
    expect(isSame(requestXForwarded, 'inside:8080', fields, 'http://inside:8080')).toBeFalse();
    for (const flag of [0, requestForwarded]) {
      expect(isSame(flag, 'inside:8080', fields, 'https://a.example:8443')).toBeFalse();
      expect(isSame(flag, 'inside:8080', fields, 'http://inside:8080')).toBeTrue();
    }
  });

  test('X-Forwarded-Port is the port where the host has none', () => {
    const onPort = (port: string, host: string, origin: string, more: Fields = {}) =>
      isSame(requestXForwarded, host, { 'x-forwarded-port': port, ...more }, origin);
    expect(onPort('8443', 'a.example', 'https://a.example:8443')).toBeTrue();
    expect(onPort('8443', 'a.example', 'https://a.example')).toBeFalse();
    expect(onPort('8443', '[::1]', 'https://[::1]:8443')).toBeTrue();
    expect(onPort('8443', 'inside', 'https://a.example:8443', { 'x-forwarded-host': 'a.example' })).toBeTrue();
    expect(onPort('8443', 'a.example:9443', 'https://a.example:9443')).toBeTrue();
    expect(onPort('8443', 'a.example:9443', 'https://a.example:8443')).toBeFalse();
    for (const port of ['80', '443', '', ' ']) expect(onPort(port, 'a.example', 'https://a.example')).toBeTrue();
    for (const port of ['abc', '99999', '-1', '8443/x', '8443@b.example'])
      for (const origin of ['https://a.example', 'https://a.example:8443', 'https://b.example'])
        expect(onPort(port, 'a.example', origin)).toBeFalse();
    const request = head('a.example', [
      ['x-forwarded-port', '8443'],
      ['origin', 'https://a.example:8443'],
    ]);
    expect(checkOrigin(request, 'same-host')).toBe('Forbidden: the page is not of this host');
  });

  test('of several proxies the outermost is heard', () => {
    const fields = { 'x-forwarded-host': 'a.example , middle', 'x-forwarded-port': '8443,8080' };
    expect(isSame(requestXForwarded, 'inside', fields, 'https://a.example:8443')).toBeTrue();
    expect(isSame(requestXForwarded, 'inside', fields, 'https://middle:8080')).toBeFalse();
    const lines = [
      ['x-forwarded-host', 'a.example'],
      ['x-forwarded-host', 'middle'],
      ['origin', 'https://a.example'],
    ] as const;
    const request = head('inside', lines);
    expect(checkOrigin({ ...request, flags: request.flags | requestXForwarded }, 'same-host')).toBeUndefined();
  });

  test('Forwarded tells the host, with its port in quotes', () => {
    const isForwarded = (forwarded: string, origin: string) => isSame(requestForwarded, 'inside:8080', { forwarded }, origin);
    expect(isForwarded('for=192.0.2.1;proto=https;host="a.example:8443"', 'https://a.example:8443')).toBeTrue();
    expect(isForwarded('For=192.0.2.1; Host=A.example', 'https://a.example')).toBeTrue();
    expect(isForwarded('for=192.0.2.1;by="x;host=b.example, host=b.example";host=a.example', 'https://a.example')).toBeTrue();
    expect(isForwarded('for=192.0.2.1, for=10.0.0.1;host=a.example, for=10.0.0.2;host=middle', 'https://a.example')).toBeTrue();
    expect(isForwarded('for=192.0.2.1;host=a.example, for=10.0.0.2;host=middle', 'https://middle')).toBeFalse();
    expect(isForwarded('host="a\\.example"', 'https://a.example')).toBeTrue();
    for (const forwarded of ['for=192.0.2.1', '', '"host=a.example', 'by="host=a.example']) {
      expect(isForwarded(forwarded, 'https://a.example')).toBeFalse();
      expect(isForwarded(forwarded, 'http://inside:8080')).toBeTrue();
    }
    expect(isSame(requestXForwarded, 'inside', { forwarded: 'host=a.example' }, 'https://a.example')).toBeFalse();
    expect(isSame(0, 'inside', { forwarded: 'host=a.example' }, 'https://a.example')).toBeFalse();
  });

  test('what is no host is no origin either', () => {
    for (const told of ['a.example/x', 'b@a.example', 'a.example?', 'a.example#', 'a.example\\x', 'a example', 'http://a.example'])
      for (const origin of ['https://a.example', 'https://inside', 'http://http'])
        expect(isSame(requestXForwarded, 'inside', { 'x-forwarded-host': told }, origin)).toBeFalse();
  });

  test('any bytes in these fields get an answer', () => {
    const text = fc.stringMatching(/^[ -~\t\x80-\xff]{0,40}$/);
    fc.assert(
      fc.property(text, text, text, (forwarded, host, port) => {
        for (const flag of [requestXForwarded, requestForwarded]) {
          const fields = { forwarded, 'x-forwarded-host': host, 'x-forwarded-port': port };
          expect(isSame(flag, 'inside', fields, 'https://quite-another.example')).toBeFalse();
        }
      }),
    );
  });
});

describe('chooseProtocol', () => {
  const offer = (...values: string[]) =>
    head(
      'a.example',
      values.map((value) => ['sec-websocket-protocol', value] as const),
    );

  test('the first that the server speaks and the client offers is taken', () => {
    expect(chooseProtocol(offer('b, a'), ['a', 'b'])).toBe('a');
    expect(chooseProtocol(offer('b'), ['a', 'b'])).toBe('b');
  });

  test('offers over several fields count as one list', () => {
    expect(chooseProtocol(offer('x', 'y,chat.v1', 'chat.v2'), ['chat.v2', 'chat.v1'])).toBe('chat.v2');
  });

  test('blanks, tabs and empty elements between offers do not matter', () => {
    expect(chooseProtocol(offer(' ,,\t a ,'), ['a'])).toBe('a');
  });

  test('nothing in common, nothing offered, or nothing spoken: none', () => {
    expect(chooseProtocol(offer('a'), ['b'])).toBe('');
    expect(chooseProtocol(offer(), ['b'])).toBe('');
    expect(chooseProtocol(offer('a'), [])).toBe('');
    expect(chooseProtocol(offer(''), ['b'])).toBe('');
  });

  test('names are compared whole and with their case (RFC 6455 §4.1)', () => {
    expect(chooseProtocol(offer('Chat, chatty, xchat'), ['chat'])).toBe('');
  });
});
