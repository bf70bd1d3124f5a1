// Which handler a request comes to.

/** A handler that answers with the name of its route and with its parameters. */
const named =
  (name, parameters = 0) =>
  (res, req) => {
    const values = Array.from({ length: parameters }, (_, index) => req.getParameter(index));
    res.end([name, ...values].join('|'));
  };

export const scenarios = {
  'static routes come before parameters, and these before wildcards, in any order of registration': {
    server({ uWS, listen }) {
      listen(
        uWS
          .App()
          .get('/*', named('/*'))
          .get('/a/*', named('/a/*'))
          .get('/a/:p', named('/a/:p', 1))
          .get('/a/:p/:q', named('/a/:p/:q', 2))
          .get('/a/b', named('/a/b'))
          .get('/a/:p/b', named('/a/:p/b', 1))
          .get('/a/b/c', named('/a/b/c'))
          .get('/', named('/')),
      );
    },
    async client(t) {
      for (const path of [
        '/',
        '/x',
        '/a',
        '/a/',
        '/a/b',
        '/a/c',
        '/a/b/',
        '/a/b/c',
        '/a/b/d',
        '/a/x/b',
        '/a/x/y',
        '/a/x/y/z',
        '/A/b',
        '//a',
        '/a//b',
      ])
        await t.get(path);
    },
  },

  'a parameter is what stands between two slashes, as it came': {
    server({ uWS, listen }) {
      listen(
        uWS
          .App()
          .get('/one/:name', named('one', 1))
          .get('/two/:a/:b', named('two', 2))
          .get('/mixed/:a/static/:b', named('mixed', 2))
          .get('/beyond/:a', named('beyond', 3))
          .get('/with-wildcard/:a/*', named('with-wildcard', 2)),
      );
    },
    async client(t) {
      for (const path of [
        '/one/x',
        '/one/%20%41',
        '/one/x?y=z',
        '/one/',
        '/one/a.b',
        '/two/1/2',
        '/mixed/l/static/r',
        '/beyond/a',
        '/with-wildcard/a/b/c',
      ])
        await t.get(path);
    },
  },

  'the route of a method comes before the one of any, and any before nothing': {
    server({ uWS, listen }) {
      const app = uWS.App();
      app
        .any('/both', named('any'))
        .get('/both', named('get'))
        .any('/only-any', (res, req) => res.end(`${req.getCaseSensitiveMethod()} ${req.getMethod()}`));
      app.any('/*', named('any wildcard')).get('/get/:p', named('get parameter', 1));
      listen(app);
    },
    async client(t) {
      await t.get('/both');
      await t.get('/get/x');
      for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND', 'get', 'Get', 'M-SEARCH']) {
        await t.exchange(`${method} /both`, `${method} /both HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n`);
        await t.exchange(`${method} /only-any`, `${method} /only-any HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n`);
      }
    },
  },

  'each method has its registration': {
    server({ uWS, listen, log }) {
      const app = uWS.App();
      for (const method of ['get', 'post', 'options', 'del', 'patch', 'put', 'head', 'connect', 'trace'])
        log(method, app[method](`/${method}`, named(method)) === app);
      listen(app);
    },
    async client(t) {
      for (const [method, name] of Object.entries({
        GET: 'get',
        POST: 'post',
        OPTIONS: 'options',
        DELETE: 'del',
        PATCH: 'patch',
        PUT: 'put',
        HEAD: 'head',
        TRACE: 'trace',
      })) {
        await t.exchange(`${method} /${name}`, `${method} /${name} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n`);
        await t.exchange(`${method} to another`, `${method} /${name}x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n`);
      }
    },
  },

  'a handler that yields passes the request on to the next route that matches': {
    server({ uWS, listen, log }) {
      const app = uWS.App();
      const yields = (name) => (_res, req) => log(name, req.setYield(true) === req, req.getUrl());
      app.get('/a/:p', yields('parameter'));
      app.get('/a/b', yields('static'));
      app.get('/a/*', yields('wildcard'));
      app.any('/a/b', yields('any static'));
      app.any('/*', (res, req) => res.end(`at last ${req.getUrl()} ${req.getHeader('x')}`));
      app.get('/never/*', yields('never'));
      app.post('/a/b', (res) => res.end('post'));
      app.get('/back', (res, req) => {
        req.setYield(true);
        req.setYield(false);
        res.end('taken back');
      });
      listen(app);
    },
    async client(t) {
      await t.exchange('/a/b', 'GET /a/b HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n');
      await t.get('/a/c');
      await t.get('/never/1');
      await t.get('/back');
    },
  },

  'a request that every route yields, or that none matches, is not found': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .get('/yields', (_res, req) => {
            log('yields');
            req.setYield(true);
          })
          .get('/here', (res) => res.end('here')),
      );
    },
    async client(t) {
      await t.get('/yields');
      await t.get('/nowhere');
      await t.exchange('POST /here', 'POST /here HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n');
      await t.exchange('POST /here with a body', 'POST /here HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc');
      const wire = await t.connect();
      wire.write('GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\nGET /here HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('not found, and the request behind it', [await wire.response(), await wire.response()]);
    },
  },

  'the same route registered twice goes to the last, and null takes it away': {
    server({ uWS, listen, attempt, log }) {
      const app = uWS.App().get('/twice', named('first')).get('/twice', named('second')).get('/gone', named('gone'));
      log(
        'null',
        attempt(() => app.get('/gone', null) === app),
      );
      log(
        'null for none',
        attempt(() => app.get('/none', null) === app),
      );
      listen(app);
    },
    async client(t) {
      await t.get('/twice');
      await t.get('/gone');
    },
  },

  'a pattern may be bytes, and a pattern without a slash at the start matches too': {
    server({ uWS, listen }) {
      listen(
        uWS
          .App()
          .get(new TextEncoder().encode('/bytes'), named('bytes'))
          .get(new TextEncoder().encode('/buffer').buffer, named('buffer'))
          .get('bare', named('bare'))
          .get('*', named('star')),
      );
    },
    async client(t) {
      for (const path of ['/bytes', '/buffer', '/bare', '/other']) await t.get(path);
    },
  },

  'routes added while serving count from the next request on': {
    server({ uWS, listen }) {
      const app = listen(uWS.App().get('/*', named('wildcard')));
      return { add: () => void app.get('/late', named('late')) };
    },
    async client(t) {
      await t.get('/late', 'before');
      await t.command('add');
      await t.get('/late', 'after');
    },
  },

  'wrong arguments to a route throw': {
    server({ uWS, attempt, log }) {
      // With a WebSocket route: without one, the original has no topics yet and ends the process at a publish.
      const app = uWS.App().ws('/ws', {});
      log(
        'no handler',
        attempt(() => app.get('/x')),
      );
      log(
        'handler is a string',
        attempt(() => app.get('/x', 'x')),
      );
      log(
        'pattern is a number',
        attempt(() => app.get(5, () => {})),
      );
      log(
        'pattern is an object',
        attempt(() => app.get({}, () => {})),
      );
      log(
        'any without handler',
        attempt(() => app.any('/x', {})),
      );
      log(
        'ws with nothing',
        attempt(() => app.ws()),
      );
      log(
        'ws with a pattern only',
        attempt(() => app.ws('/x')),
      );
      log(
        'ws with a number',
        attempt(() => app.ws(1, {})),
      );
      log(
        'publish without message',
        attempt(() => app.publish('topic')),
      );
      log(
        'publish a number',
        attempt(() => app.publish('topic', 5)),
      );
      log(
        'publish to nobody',
        attempt(() => app.publish('topic', 'message')),
      );
      log(
        'numSubscribers of nothing',
        attempt(() => app.numSubscribers()),
      );
      log(
        'numSubscribers of a number',
        attempt(() => app.numSubscribers(5)),
      );
      log(
        'numSubscribers of none',
        attempt(() => app.numSubscribers('none')),
      );
      log(
        'listen to nothing',
        attempt(() => app.listen()),
      );
      log(
        'listen without callback',
        attempt(() => app.listen(0)),
      );
      log(
        'listen_unix of one',
        attempt(() => app.listen_unix(() => {})),
      );
      log(
        'domain of nothing',
        attempt(() => app.domain()),
      );
      log(
        'domain of a number',
        attempt(() => app.domain(5)),
      );
    },
    async client() {},
  },
};
