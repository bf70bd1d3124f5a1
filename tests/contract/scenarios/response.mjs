// What HttpResponse puts on the wire, what its calls give, and for how long it lives.

/** A server whose every path has its own handler. */
const paths = (handlers) => ({
  server({ uWS, listen, log, attempt }) {
    const app = uWS.App();
    for (const [path, handler] of Object.entries(handlers)) app.any(path, (res, req) => handler(res, req, { log, attempt }));
    listen(app);
  },
  async client(t) {
    for (const path of Object.keys(handlers)) await t.get(path);
  },
});

const ended = 'after the end';

export const scenarios = {
  'end writes the body in one piece, with its length': paths({
    '/text': (res, _req, { log }) => log('gives itself', res.end('text') === res),
    '/nothing': (res) => res.end(),
    '/empty': (res) => res.end(''),
    '/utf-8': (res) => res.end('žluťoučký €'),
    '/buffer': (res) => res.end(new TextEncoder().encode('buffer').buffer),
    '/bytes': (res) => res.end(new TextEncoder().encode('xbytesx').subarray(1, 6)),
    '/words': (res) => res.end(new Uint16Array([0x4241, 0x4443])),
    '/shared': (res) => res.end(new SharedArrayBuffer(3)),
    '/large': (res) => res.end('x'.repeat(300_000)),
  }),

  'end can close the connection': {
    server({ uWS, listen }) {
      listen(
        uWS
          .App()
          .get('/closes', (res) => res.end('closes', true))
          .get('/stays', (res) => res.end('stays', false)),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET /stays HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('stays', await wire.response());
      wire.write('GET /closes HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('closes', [await wire.response(), await wire.closed()]);
    },
  },

  'the status and the headers are written as they are given': paths({
    '/status': (res, _req, { log }) => log('gives itself', res.writeStatus('404 Not Here') === res, res.end('x') === res),
    '/number': (res) => res.writeStatus('299').end('x'),
    '/words': (res) => res.writeStatus('200 Quite All Right').end(),
    '/bytes': (res) => res.writeStatus(new TextEncoder().encode('201 Created')).end(),
    '/headers': (res, _req, { log }) => log('gives itself', res.writeHeader('X-A', 'b') === res, res.writeHeader('x-A', 'c').end() === res),
    '/status-and-headers': (res) =>
      res.writeStatus('500 Oh').writeHeader('content-type', 'text/plain').writeHeader('Server', 'mine').end('x'),
    '/header-then-status': (res) => res.writeHeader('a', 'b').writeStatus('404 Too Late').end('x'),
    '/two-statuses': (res) => res.writeStatus('201 First').writeStatus('202 Second').end('x'),
    '/empty-value': (res) => res.writeHeader('a', '').end('x'),
    '/byte-header': (res) => res.writeHeader(new TextEncoder().encode('a'), new TextEncoder().encode('b').buffer).end('x'),
  }),

  'write sends the body in chunks': paths({
    '/write': (res, _req, { log }) => {
      log('write gives', res.write('one'));
      log('write gives', res.write(new TextEncoder().encode('two')));
      res.end();
    },
    '/write-and-end': (res) => {
      res.write('one');
      res.end('two');
    },
    '/with-status': (res) => {
      res.writeStatus('202 Going').writeHeader('x', 'y').write('one');
      res.end('two');
    },
    '/empty-write': (res) => {
      res.write('');
      res.end('x');
    },
    '/header-after-write': (res) => {
      res.write('one');
      res.end();
    },
    '/large': (res) => {
      for (const letter of 'abcdef') res.write(letter.repeat(20_000));
      res.end();
    },
  }),

  'endWithoutBody sends a head and nothing else': {
    ...paths({
      '/none': (res, _req, { log }) => log('gives itself', res.endWithoutBody() === res),
      '/status': (res) => res.writeStatus('204 No Content').endWithoutBody(),
      '/not-modified': (res) => res.writeStatus('304 Not Modified').writeHeader('ETag', '"x"').endWithoutBody(),
    }),
    async client(t) {
      const wire = await t.connect();
      wire.write(
        'HEAD /none HTTP/1.1\r\nHost: a\r\n\r\nGET /status HTTP/1.1\r\nHost: a\r\n\r\nGET /not-modified HTTP/1.1\r\nHost: a\r\n\r\n',
      );
      t.record('none', await wire.response('HEAD'));
      t.record('status', await wire.response());
      t.record('not modified', await wire.response());
    },
  },

  'HEAD is answered by the handler registered for it only': {
    server({ uWS, listen }) {
      listen(
        uWS
          .App()
          .head('/nothing', (res) => res.writeHeader('a', 'b').end())
          .head('/without', (res) => res.endWithoutBody())
          .get('/get-only', (res) => res.end('get')),
      );
    },
    async client(t) {
      for (const path of ['/nothing', '/without', '/get-only'])
        await t.exchange(`HEAD ${path}`, `HEAD ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
    },
    differences: [
      {
        id: 'bodiless-responses',
        step: 'HEAD /nothing',
        original: 'HTTP/1.1 200 OK\r\na: b\r\nDate: now\r\nContent-Length: 0\r\n\r\n',
        ours: 'HTTP/1.1 200 OK\r\na: b\r\nDate: now\r\n\r\n',
      },
    ],
  },

  'tryEnd sends a body whose whole length is told before': paths({
    '/at-once': (res, _req, { log }) => log('gives', res.getWriteOffset(), res.tryEnd('whole', 5)),
    '/in-two': (res, _req, { log }) => {
      log('first', res.tryEnd('first', 11));
      log('offset', res.getWriteOffset());
      log('second', res.tryEnd('second', 11));
    },
    '/with-headers': (res) => res.writeStatus('206 Part').writeHeader('a', 'b').tryEnd('part', 4),
    '/no-total': (res, _req, { log }) => log('gives', res.tryEnd('alone')),
  }),

  'a response is dead after its end': paths({
    '/end': (res, _req, { log, attempt }) => {
      log('before', res.getWriteOffset());
      res.end('x');
      for (const [member, ...values] of [
        ['writeStatus', '200 OK'],
        ['writeHeader', 'a', 'b'],
        ['write', 'x'],
        ['end', 'x'],
        ['endWithoutBody'],
        ['tryEnd', 'x', 1],
        ['close'],
        ['getWriteOffset'],
        ['onWritable', () => true],
        ['onAborted', () => {}],
        ['onData', () => {}],
        ['getRemoteAddress'],
        ['getRemoteAddressAsText'],
        ['getProxiedRemoteAddress'],
        ['getProxiedRemoteAddressAsText'],
        ['cork', () => {}],
        ['pause'],
        ['resume'],
        ['upgrade', {}, '', '', '', null],
      ])
        log(
          ended,
          member,
          attempt(() => res[member](...values)),
        );
    },
    '/close': (res, _req, { log, attempt }) => {
      log('close gives itself', res.close() === res);
      log(
        ended,
        'after close',
        attempt(() => res.end('x')),
      );
    },
    '/without-body': (res, _req, { log, attempt }) => {
      res.writeStatus('204 No Content').endWithoutBody();
      log(
        ended,
        'after endWithoutBody',
        attempt(() => res.end('x')),
      );
    },
    '/try-end': (res, _req, { log, attempt }) => {
      res.tryEnd('x', 1);
      log(
        ended,
        'after tryEnd',
        attempt(() => res.end('x')),
      );
    },
  }),

  'wrong arguments to a response throw': paths({
    '/': (res, _req, { log, attempt }) => {
      log(
        'writeStatus of a number',
        attempt(() => res.writeStatus(200)),
      );
      log(
        'writeHeader without value',
        attempt(() => res.writeHeader('a') === res),
      );
      log(
        'writeHeader of a number',
        attempt(() => res.writeHeader('a', 5)),
      );
      log(
        'writeHeader of null',
        attempt(() => res.writeHeader(null, 'a')),
      );
      log(
        'write of a number',
        attempt(() => res.write(5)),
      );
      log(
        'write of an object',
        attempt(() => res.write({})),
      );
      log(
        'end of a number',
        attempt(() => res.end(5)),
      );
      log(
        'end of null',
        attempt(() => res.end(null)),
      );
      log(
        'end of an array',
        attempt(() => res.end(['a'])),
      );
      log(
        'tryEnd of true',
        attempt(() => res.tryEnd(true, 4)),
      );
      res.end('in the end');
    },
  }),

  'cork runs its function at once and gives the response': paths({
    '/cork': (res, _req, { log }) => {
      const order = [];
      const result = res.cork(() => {
        order.push('inside');
        res.writeStatus('200 Corked').writeHeader('a', 'b');
        res.write('one');
        res.end('two');
      });
      order.push('after');
      log('cork', order, result === res);
    },
    '/nested': (res) => {
      res.cork(() => {
        res.cork(() => res.write('in'));
        res.write('out');
        res.end();
      });
    },
  }),

  'properties can be kept on a response': {
    server({ uWS, listen, log }) {
      let last;
      listen(
        uWS.App().get('/*', (res) => {
          log('fresh', res.mine, Object.keys(res), res === last);
          res.mine = 'kept';
          // Names that an implementation may have use for itself.
          for (const name of ['slot', 'generation', 'request', 'state', 'host', 'core', 'block']) res[name] = name;
          last = res;
          res.onAborted(() => {});
          setImmediate(() => res.cork(() => res.end([...Object.keys(res), res.slot, res.request].join())));
        }),
      );
    },
    async client(t) {
      await t.get('/', 'first');
      await t.get('/', 'second');
    },
  },

  'the addresses of a client are bytes and text': {
    server({ uWS, listen, log }) {
      const app = uWS.App().get('/*', (res) => {
        for (const member of ['getRemoteAddress', 'getRemoteAddressAsText', 'getProxiedRemoteAddress', 'getProxiedRemoteAddressAsText'])
          log(member, res[member]());
        res.end();
      });
      listen(app);
      app.listen('::1', 0, (token) => {
        if (token) console.log(JSON.stringify({ port: uWS.us_socket_local_port(token), label: 'six' }));
      });
    },
    async client(t) {
      await t.get('/');
      await t.get('/', 'over IPv6', { to: 'six', host: '::1' });
    },
  },

  'onAborted is called when the client goes away, and the response is dead then': {
    server({ uWS, listen, log, attempt }) {
      listen(
        uWS
          .App()
          .get('/waits', (res) => {
            log(
              'onAborted gives itself',
              res.onAborted(() =>
                log(
                  'aborted',
                  attempt(() => res.getWriteOffset()),
                  attempt(() => res.end('x')),
                ),
              ) === res,
            );
            log('waits');
          })
          .get('/closes', (res) => {
            res.onAborted(() => log('aborted by close'));
            log('before close');
            res.close();
            log('after close');
          })
          .get('/replaced', (res) => {
            res.onAborted(() => log('first'));
            res.onAborted(() => log('second'));
            res.close();
          })
          .get('/ended', (res) => {
            res.onAborted(() => log('must not come'));
            res.end('ended');
          }),
      );
    },
    async client(t) {
      const gone = await t.connect();
      gone.write('GET /waits HTTP/1.1\r\nHost: a\r\n\r\n');
      await t.logged('waits');
      gone.reset();
      await t.logged('aborted');
      const half = await t.connect();
      half.write('GET /waits HTTP/1.1\r\nHost: a\r\n\r\n');
      await t.logged('waits', 2);
      half.end();
      await t.logged('aborted', 2);
      t.record('a client that ends its half is gone', await half.closed());
      await t.get('/closes');
      await t.get('/replaced');
      await t.get('/ended');
    },
  },

  'a corked answer after a wait comes in one piece': {
    server({ uWS, listen }) {
      listen(
        uWS.App().get('/*', (res) => {
          res.onAborted(() => {});
          setTimeout(() => {
            res.cork(() => {
              res.writeStatus('200 OK').writeHeader('x', 'y');
              res.write('one');
            });
            setTimeout(() => res.cork(() => res.end('two')), 1);
          }, 1);
        }),
      );
    },
    async client(t) {
      await t.get('/');
    },
  },
};
