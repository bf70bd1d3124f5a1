// What HttpRequest tells a handler, and for how long.

/** How the two refuse what they cannot read. */
const refusals = {
  original: (status) =>
    `HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n<h1>${status.slice(4)}</h1>${status.startsWith('505') ? '<p>This server does not support HTTP/1.0.</p>' : ''}<hr><i>uWebSockets/20 Server</i>`,
  ours: (status) =>
    `HTTP/1.1 ${status}\r\nContent-Type: text/plain\r\nConnection: close\r\nDate: now\r\nContent-Length: ${status.length - 4}\r\n\r\n${status.slice(4)}`,
};

/** A head that is too long. */
const tooLong = (step) => ({
  id: 'refusal-pages',
  step,
  original: refusals.original('431 Request Header Fields Too Large'),
  ours: refusals.ours('431 Request Header Fields Too Large'),
});

/** Answers with what a look at the request gives, as JSON. */
const answer = (look) => (res, req) => res.end(JSON.stringify(look(req) ?? 'undefined'));

export const scenarios = {
  'headers are found by their name in lower case, and missing ones are empty': {
    server({ uWS, listen }) {
      const names = ['host', 'x-one', 'X-One', 'X-ONE', 'missing', 'x-empty', 'x-spaces', 'x-twice', 'cookie', ''];
      listen(
        uWS.App().get(
          '/*',
          answer((req) => names.map((name) => req.getHeader(name))),
        ),
      );
    },
    async client(t) {
      const head = 'X-One: Value One\r\nx-empty:\r\nX-Spaces:   padded \t \r\nX-Twice: a\r\nX-Twice: b\r\nCookie: a=b; c=d';
      await t.exchange('headers', `GET / HTTP/1.1\r\nHost: example.com:80\r\n${head}\r\n\r\n`);
    },
  },

  'bytes beyond ASCII in a header are Latin-1 to getHeader and UTF-8 to forEach': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().get('/*', (res, req) => {
          log('getHeader', req.getHeader('x-latin'), req.getHeader('x-utf'));
          log('at the end', req.getHeader('x-end'));
          req.forEach((name, value) => {
            if (name !== 'x-end') log('forEach', name, value);
          });
          res.end();
        }),
      );
    },
    async client(t) {
      const fields = 'X-Latin: caf\xe9 x\r\nX-UTF: a \xe2\x82\xac x\r\nX-End: caf\xe9';
      await t.exchange('headers', Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\n${fields}\r\n\r\n`, 'latin1'));
    },
    differences: [{ id: 'header-end', event: 'at the end', original: [['caf']], ours: [['caf\xe9']] }],
  },

  'forEach goes through all headers in their order, with names in lower case': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().get('/*', (res, req) => {
          const result = req.forEach((name, value) => {
            log('header', name, value);
          });
          log('forEach gives', result);
          res.end();
        }),
      );
    },
    async client(t) {
      await t.exchange('headers', 'GET / HTTP/1.1\r\nHost: a\r\nB: 2\r\nA-Long-Name: Some Value\r\nB: 3\r\nAccept: */*\r\n\r\n');
    },
  },

  'the URL is without the query, and the query is as it came': {
    server({ uWS, listen }) {
      listen(
        uWS.App().any(
          '/*',
          answer((req) => [req.getUrl(), req.getQuery()]),
        ),
      );
    },
    async client(t) {
      for (const target of ['/', '/?', '/a?b', '/a?b=c&d=e', '/a%20b?c%20d', '/a?b?c', '/a?%zz', '/a/../b', '/~a;b,c', '/?=', '/a+b?c+d'])
        await t.get(target);
    },
  },

  'a query value is found by its name and decoded': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().get('/*', (res, req) => {
          // First, because the original decodes in place: what it says of the whole query afterwards is mangled.
          log('whole', req.getQuery());
          for (const key of ['a', 'b', 'empty', 'bare', 'missing', 'plus', 'percent', 'bad', 'twice', 'euro', 'A'])
            log(key, req.getQuery(key));
          log('bytes', req.getQuery(new TextEncoder().encode('a')));
          res.end();
        }),
      );
    },
    async client(t) {
      await t.get('/?a=1&b=two%20words&empty=&bare&plus=x+y&percent=%41%2f%2F&twice=first&twice=second&euro=%E2%82%AC');
      await t.get('/', 'no query');
      await t.get('/?', 'empty query');
    },
  },

  'parameters are found by index, and those that are not there are empty': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().get('/:a/x/:b', (res, req) => {
          for (const index of [0, 1]) log('parameter', req.getParameter(index));
          log('missing', req.getParameter(2));
          res.end();
        }),
      );
    },
    async client(t) {
      await t.get('/one/x/two');
    },
    differences: [{ id: 'undefined-parameter', event: 'missing', original: [['']], ours: [['undefined']] }],
  },

  'wrong arguments to a request throw': {
    server({ uWS, listen, log, attempt }) {
      listen(
        uWS.App().get('/*', (res, req) => {
          log(
            'getHeader of a number',
            attempt(() => req.getHeader(5)),
          );
          log(
            'getHeader of nothing',
            attempt(() => req.getHeader()),
          );
          log(
            'getHeader of null',
            attempt(() => req.getHeader(null)),
          );
          log(
            'getHeader of bytes',
            attempt(() => req.getHeader(new TextEncoder().encode('host'))),
          );
          log(
            'getQuery of a number',
            attempt(() => req.getQuery(5)),
          );
          log(
            'getQuery of undefined',
            attempt(() => req.getQuery(undefined)),
          );
          res.end();
        }),
      );
    },
    async client(t) {
      await t.get('/?a=b');
    },
  },

  'a request is dead once its handler has returned': {
    server({ uWS, listen, log, attempt }) {
      const members = ['getHeader', 'getParameter', 'getUrl', 'getMethod', 'getCaseSensitiveMethod', 'getQuery', 'forEach', 'setYield'];
      listen(
        uWS.App().get('/*', (res, req) => {
          res.onAborted(() => {});
          setTimeout(() => {
            for (const member of members)
              log(
                member,
                attempt(() => req[member]('a')),
              );
            res.cork(() => res.end('late'));
          }, 1);
        }),
      );
    },
    async client(t) {
      await t.get('/');
    },
  },

  'a request still lives in what an asynchronous handler does before it really waits': {
    server({ uWS, listen, log, attempt }) {
      listen(
        uWS.App().get('/*', async (res, req) => {
          res.onAborted(() => {});
          log(
            'at once',
            attempt(() => req.getUrl()),
          );
          await null;
          log(
            'after a resolved promise',
            attempt(() => req.getUrl()),
          );
          await Promise.resolve().then(() => {});
          log(
            'after two more',
            attempt(() => req.getHeader('host')),
          );
          await new Promise((resolve) => setImmediate(resolve));
          log(
            'after a turn of the loop',
            attempt(() => req.getUrl()),
          );
          res.cork(() => res.end('late'));
        }),
      );
    },
    async client(t) {
      await t.get('/here');
    },
  },

  'wrong requests are refused': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().any('/*', (res, req) => {
          log('reached', req.getUrl());
          res.end('reached');
        }),
      );
    },
    async client(t) {
      const requests = {
        'two lengths': 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
        'length and chunks': 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        'a length that is no number': 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1x\r\n\r\na',
        'no version': 'GET /\r\n\r\n',
        'another version': 'GET / HTTP/2.0\r\nHost: a\r\n\r\n',
      };
      for (const [label, request] of Object.entries(requests)) await t.exchange(label, request);
    },
    differences: [
      {
        id: 'strict-http',
        step: 'two lengths',
        original: 'HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 7\r\n\r\nreached',
        ours: refusals.ours('400 Bad Request'),
      },
      { id: 'strict-http', event: 'reached', original: [['/'], ['/']], ours: [] },
      ...[
        ['length and chunks', '400 Bad Request', '400 Bad Request'],
        ['a length that is no number', '400 Bad Request', '400 Bad Request'],
        ['no version', '505 HTTP Version Not Supported', '400 Bad Request'],
        ['another version', '505 HTTP Version Not Supported', '505 HTTP Version Not Supported'],
      ].map(([step, theirs, own]) => ({ id: 'refusal-pages', step, original: refusals.original(theirs), ours: refusals.ours(own) })),
    ],
  },

  'HTTP/1.0 is served': {
    server({ uWS, listen }) {
      listen(uWS.App().get('/*', (res) => res.end('old')));
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET / HTTP/1.0\r\nHost: a\r\n\r\n');
      t.record('answer', await wire.response());
    },
    differences: [
      {
        id: 'http-1.0',
        step: 'answer',
        original: refusals.original('505 HTTP Version Not Supported'),
        ours: 'HTTP/1.1 200 OK\r\nConnection: close\r\nDate: now\r\nContent-Length: 3\r\n\r\nold',
      },
    ],
  },

  'requests in a row on one connection are answered in order': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .get('/slow/:n', (res, req) => {
            const n = req.getParameter(0);
            log('slow', n);
            res.onAborted(() => log('aborted', n));
            setTimeout(() => res.cork(() => res.end(`slow ${n}`)), 5);
          })
          .any('/*', (res, req) => {
            log('fast', req.getUrl());
            res.end(req.getUrl());
          }),
      );
    },
    async client(t) {
      const wire = await t.connect();
      const request = (path) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`;
      wire.write(['/1', '/2', '/3'].map(request).join(''));
      t.record('three at once', [await wire.response(), await wire.response(), await wire.response()]);
      wire.write(`POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody${request('/after')}`);
      t.record('behind a body nobody reads', [await wire.response(), await wire.response()]);
      wire.write(request('/slow/1'));
      t.record('slow', await wire.response());
    },
  },

  'a client that asks for the close of the connection gets it': {
    server({ uWS, listen }) {
      listen(uWS.App().get('/*', (res) => res.end('bye')));
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
      t.record('answer', await wire.response());
      t.record('end', await wire.closed());
    },
    differences: [
      {
        id: 'connection-close',
        step: 'answer',
        original: 'HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 3\r\n\r\nbye',
        ours: 'HTTP/1.1 200 OK\r\nConnection: close\r\nDate: now\r\nContent-Length: 3\r\n\r\nbye',
      },
    ],
  },

  'the environment says how long a head may be': {
    env: { UWS_HTTP_MAX_HEADERS_SIZE: '20000' },
    server({ uWS, listen }) {
      listen(uWS.App().get('/*', (res, req) => res.end(`${req.getUrl().length} ${req.getHeader('x').length}`)));
    },
    async client(t) {
      const withField = (bytes) => `GET / HTTP/1.1\r\nHost: a\r\nx: ${'x'.repeat(bytes - 32)}\r\n\r\n`;
      const withTarget = (bytes) => `GET /${'t'.repeat(bytes - 27)} HTTP/1.1\r\nHost: a\r\n\r\n`;
      for (const head of [withField, withTarget]) {
        if (head(5000).length !== 5000) throw new Error('a head is as long as it says');
        for (const bytes of [1000, 17_000, 20_000]) await t.exchange(`${head.name} ${bytes}`, head(bytes));
        await t.exchange(`${head.name} 20001`, head(20_001));
      }
    },
    differences: [tooLong('withField 20001'), tooLong('withTarget 20001')],
  },

  'a long head is served without a word in the environment': {
    server({ uWS, listen }) {
      listen(uWS.App().get('/*', (res, req) => res.end(`${req.getHeader('x').length}`)));
    },
    client: (t) => t.exchange('5000 bytes', `GET / HTTP/1.1\r\nHost: a\r\nx: ${'x'.repeat(5000 - 32)}\r\n\r\n`),
    differences: [
      {
        id: 'head-length',
        step: '5000 bytes',
        original: refusals.original('431 Request Header Fields Too Large'),
        ours: 'HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 4\r\n\r\n4968',
      },
    ],
  },

  'a short head may be all there may be': {
    env: { UWS_HTTP_MAX_HEADERS_SIZE: '600' },
    server({ uWS, listen }) {
      listen(uWS.App().get('/*', (res, req) => res.end(`${req.getHeader('x').length}`)));
    },
    async client(t) {
      const head = (bytes) => `GET / HTTP/1.1\r\nHost: a\r\nx: ${'x'.repeat(bytes - 32)}\r\n\r\n`;
      await t.exchange('as long', head(600));
      await t.exchange('one more', head(601));
    },
    differences: [tooLong('one more')],
  },
};
