// Bodies of requests, and bodies of responses that are larger than what the other end takes at once.
import { createHash } from 'node:crypto';

const post = (path, head, body = '') => `POST ${path} HTTP/1.1\r\nHost: a\r\n${head}\r\n\r\n${body}`;

/** Logs what has come as a whole, since how it is cut is for the network to say. */
function collect(res, log, done) {
  let text = '';
  let lasts = 0;
  const result = res.onData((chunk, isLast) => {
    text += Buffer.from(chunk).toString('latin1');
    if (!isLast) return;
    lasts += 1;
    log('body', text.length > 200 ? createHash('sha1').update(text).digest('hex') : text, lasts);
    done(text);
  });
  log('onData gives itself', result === res);
}

export const scenarios = {
  'a body comes in pieces, the last of them marked': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().post('/*', (res) => {
          res.onAborted(() => log('aborted'));
          collect(res, log, (text) => res.cork(() => res.end(String(text.length))));
        }),
      );
    },
    async client(t) {
      await t.exchange('with a length', post('/', 'Content-Length: 11', 'hello world'));
      await t.exchange('of no length', post('/', 'Content-Length: 0'));
      await t.exchange('chunked', post('/', 'Transfer-Encoding: chunked', '5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n'));
      await t.exchange('large', post('/', 'Content-Length: 1000000', 'a'.repeat(1_000_000)));
      const wire = await t.connect();
      wire.write(post('/', 'Content-Length: 6', 'abc'));
      await t.logged('onData gives itself', 5);
      wire.write('def');
      t.record('in two parts', await wire.response());
      wire.write(post('/', 'Content-Length: 2', 'xy') + post('/', 'Content-Length: 2', 'zz'));
      t.record('two behind each other', [await wire.response(), await wire.response()]);
    },
  },

  'a chunk may have extensions, and a chunked body trailers': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().post('/*', (res) => {
          res.onAborted(() => log('aborted'));
          res.onData((chunk, isLast) => {
            log('data', chunk.byteLength);
            if (isLast) res.end('all');
          });
        }),
      );
    },
    async client(t) {
      await t.exchange('answer', post('/', 'Transfer-Encoding: chunked', '3;x=y\r\nabc\r\n0\r\n\r\n'));
    },
    differences: [
      {
        id: 'chunk-extensions',
        step: 'answer',
        original: 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<h1>Bad Request</h1><hr><i>uWebSockets/20 Server</i>',
        ours: 'HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 3\r\n\r\nall',
      },
      { id: 'chunk-extensions', event: 'aborted', original: [[]], ours: [] },
      { id: 'chunk-extensions', event: 'data', original: [], ours: [[3]] },
    ],
  },

  'a GET has a body of no bytes': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().get('/*', (res) => {
          res.onAborted(() => log('aborted'));
          res.onData((chunk, isLast) => {
            log('data', chunk.byteLength, isLast);
            res.end('got it');
          });
        }),
      );
    },
    async client(t) {
      await t.get('/');
    },
  },

  'a piece of a body is detached when its handler returns': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().post('/*', (res) => {
          res.onAborted(() => {});
          res.onData((chunk, isLast) => {
            log('inside', chunk.byteLength, isLast, chunk instanceof ArrayBuffer);
            setImmediate(() => log('outside', chunk.byteLength));
            if (isLast) setImmediate(() => res.cork(() => res.end('x')));
          });
        }),
      );
    },
    async client(t) {
      await t.exchange('body', post('/', 'Content-Length: 4', 'data'));
      await t.logged('outside');
    },
  },

  'a client that goes away in the middle of its body aborts the response': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().post('/*', (res) => {
          res.onAborted(() => log('aborted'));
          res.onData((chunk, isLast) => log('data', Buffer.from(chunk).toString(), isLast));
        }),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write(post('/', 'Content-Length: 10', 'abc'));
      await t.logged('data');
      wire.destroy();
      await t.logged('aborted');
    },
  },

  'an answer may come before the body has': {
    server({ uWS, listen, log }) {
      listen(
        uWS
          .App()
          .post('/early', (res) => res.end('early'))
          .get('/after', (res) => res.end('after')),
      );
      log('listens');
    },
    async client(t) {
      const wire = await t.connect();
      wire.write(post('/early', 'Content-Length: 5', 'ab'));
      t.record('early', await wire.response());
      wire.write('cdeGET /after HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('after', await wire.response());
    },
  },

  'a client that waits for 100-continue': {
    server({ uWS, listen, log }) {
      listen(
        uWS.App().post('/*', (res) => {
          res.onAborted(() => {});
          collect(res, log, (text) => res.end(text));
        }),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write(post('/', 'Content-Length: 4\r\nExpect: 100-continue'));
      t.record('go on', await wire.response());
      wire.write('body');
      t.record('answer', await wire.response());
    },
  },

  'a paused body stops and goes on when resumed': {
    server({ uWS, listen, log }) {
      let waiting;
      listen(
        uWS.App().post('/*', (res) => {
          waiting = res;
          res.onAborted(() => log('aborted'));
          log('pause gives itself', res.pause() === res);
          let bytes = 0;
          res.onData((chunk, isLast) => {
            bytes += chunk.byteLength;
            if (isLast) {
              log('all', bytes);
              res.cork(() => res.end('thanks'));
            }
          });
        }),
      );
      return { resume: () => void log('resume gives itself', waiting.resume() === waiting) };
    },
    async client(t) {
      const wire = await t.connect();
      wire.write(post('/', 'Content-Length: 3000000'));
      await t.logged('pause gives itself');
      wire.write('x'.repeat(3_000_000));
      await t.command('resume');
      t.record('answer', await wire.response());
    },
  },

  'a body of twenty megabytes goes to a slow reader by tryEnd and onWritable': {
    server({ uWS, listen, log }) {
      const body = Buffer.alloc(20_000_000);
      for (let at = 0; at < body.length; at += 4) body.writeUInt32LE(at, at);
      const whole = body.buffer.slice(body.byteOffset, body.byteOffset + body.length);
      log('sha1', createHash('sha1').update(body).digest('hex'));
      listen(
        uWS.App().get('/*', (res) => {
          let calls = 0;
          res.onAborted(() => log('aborted'));
          const [ok, done] = res.tryEnd(whole, whole.byteLength);
          log('tryEnd', ok, done, res.getWriteOffset() < whole.byteLength);
          let before = res.getWriteOffset();
          const result = res.onWritable((offset) => {
            if (calls++ === 0) log('onWritable gets the offset', offset === before, offset === res.getWriteOffset());
            const [ok, done] = res.tryEnd(whole.slice(offset), whole.byteLength);
            if (done) log('done', ok);
            else before = res.getWriteOffset();
            return ok;
          });
          log('onWritable gives itself', result === res);
        }),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      wire.pause();
      await t.logged('onWritable gives itself');
      wire.resume();
      t.record('answer', await wire.response());
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      t.record('again', await wire.response());
    },
  },

  'write says when the other end is slow, and onWritable when it has caught up': {
    server({ uWS, listen, log }) {
      const part = 'p'.repeat(100_000);
      listen(
        uWS.App().get('/*', (res) => {
          let ok = true;
          let writes = 0;
          res.onAborted(() => log('aborted'));
          while (ok && writes < 1000) {
            ok = res.write(part);
            writes += 1;
          }
          log('write says no', ok);
          res.onWritable((offset) => {
            log('writable', typeof offset, offset === res.getWriteOffset());
            res.end('the end');
            return true;
          });
        }),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      wire.pause();
      await t.logged('write says no');
      wire.resume();
      const answer = await wire.response();
      // How much fits before it says no is for the kernel to say.
      t.record('head', answer.slice(0, answer.indexOf('\r\n\r\n')));
      t.record('end', answer.slice(-17));
    },
  },

  'a slow reader that goes away aborts': {
    server({ uWS, listen, log }) {
      const whole = new ArrayBuffer(20_000_000);
      listen(
        uWS.App().get('/*', (res) => {
          res.onAborted(() => log('aborted'));
          log('tryEnd', res.tryEnd(whole, whole.byteLength));
          res.onWritable(() => true);
          log('waits');
        }),
      );
    },
    async client(t) {
      const wire = await t.connect();
      wire.pause();
      wire.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      await t.logged('waits');
      wire.reset();
      await t.logged('aborted');
    },
  },

  'getParts takes a multipart body apart': {
    server({ uWS, log, attempt }) {
      const body = [
        '--xyz',
        'Content-Disposition: form-data; name="field"',
        '',
        'value',
        '--xyz',
        'Content-Disposition: form-data; name="file"; filename="a b.txt"',
        'Content-Type: text/plain',
        '',
        'line one\r\nline two',
        '--xyz',
        'content-disposition: form-data; name=bare',
        '',
        '',
        '--xyz--',
        '',
      ].join('\r\n');
      const parts = (text, type) =>
        attempt(() => uWS.getParts(Buffer.from(text), type)?.map((part) => ({ ...part, data: Buffer.from(part.data).toString() })));
      log('parts', parts(body, 'multipart/form-data; boundary=xyz'));
      log('quoted boundary', parts(body, 'multipart/form-data; boundary="xyz"'));
      log('another boundary', parts(body, 'multipart/form-data; boundary=abc'));
      log('no boundary', parts(body, 'multipart/form-data'));
      log('not multipart', parts(body, 'application/json'));
      log('empty', parts('', 'multipart/form-data; boundary=xyz'));
      log('cut off', parts(body.slice(0, 80), 'multipart/form-data; boundary=xyz'));
      log(
        'a number',
        attempt(() => uWS.getParts(5, 'multipart/form-data; boundary=xyz')),
      );
      log(
        'no type',
        attempt(() => uWS.getParts(Buffer.from('x'), 5)),
      );
    },
    async client() {},
    differences: [
      {
        id: 'quoted-boundary',
        event: 'quoted boundary',
        original: [[[]]],
        ours: [
          [
            [
              { data: 'value', name: 'field' },
              { data: 'line one\r\nline two', name: 'file', filename: 'a b.txt', type: 'text/plain' },
              { data: '', name: 'bare' },
            ],
          ],
        ],
      },
    ],
  },
};
