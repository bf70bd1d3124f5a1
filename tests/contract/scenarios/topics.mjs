// Topics: who is subscribed, what is published to whom, and in which order.
import { frame, opcode } from '../../support/frames.mjs';
import { text } from '../handlers.mjs';

/** A server whose sockets do what they are told: one word, then its arguments. */
function told({ uWS, listen, log, attempt }, more = {}) {
  const app = uWS.App();
  const verbs = {
    subscribe: (ws, topic) => log('subscribe', topic, ws.subscribe(topic), ws.isSubscribed(topic), app.numSubscribers(topic)),
    unsubscribe: (ws, topic) => log('unsubscribe', topic, ws.unsubscribe(topic), ws.isSubscribed(topic), app.numSubscribers(topic)),
    topics: (ws) => log('topics', ws.getTopics().sort()),
    publish: (ws, topic, message) => log('publish', ws.publish(topic, message)),
    send: (ws, message) => log('send', ws.send(message)),
    burst: (ws) => {
      ws.send('sent before');
      log('burst publishes', app.publish('room', 'published one'));
      ws.send('sent between');
      app.publish('room', new TextEncoder().encode('published two'), true);
      ws.send('sent after');
    },
    end: (ws) => ws.end(),
  };
  app.ws('/*', {
    message(ws, message) {
      const [verb, ...rest] = text(message).split(' ');
      verbs[verb](ws, ...rest);
    },
    subscription: (_ws, topic, now, before) => log('subscription', text(topic), now, before),
    close: (ws) =>
      log(
        'close',
        attempt(() => ws.getTopics()),
      ),
    ...more,
  });
  listen(app);
  return {
    publish: (topic, message, isBinary, compress) => app.publish(topic, message, isBinary, compress),
    count: (topic) => app.numSubscribers(topic),
  };
}

const say = (wire, line) => wire.write(frame(opcode.text, line));

export const scenarios = {
  'subscribing, leaving and counting': {
    server: told,
    async client(t) {
      const one = await t.websocket();
      const two = await t.websocket();
      let said = 0;
      const step = async (wire, line) => {
        say(wire, line);
        said += 1;
        // The answer to a message of no consequence, so that each step is over before the next.
        say(wire, 'send done');
        await t.logged('send', said);
        await wire.frame();
      };
      await step(one, 'subscribe a');
      await step(one, 'subscribe a');
      await step(two, 'subscribe a');
      await step(two, 'subscribe b');
      await step(two, 'subscribe c/d/#');
      await step(two, 'topics');
      await step(one, 'unsubscribe b');
      await step(one, 'unsubscribe a');
      await step(one, 'unsubscribe a');
      await step(one, 'topics');
      t.record('counts', [await t.command('count', 'a'), await t.command('count', 'b'), await t.command('count', 'none')]);
      // With one topic left: in which order several are told is for a hash table to say.
      await step(two, 'unsubscribe c/d/#');
      await step(two, 'unsubscribe b');
      two.destroy();
      await t.logged('close');
      t.record('counts after the close', [await t.command('count', 'a'), await t.command('count', 'b')]);
    },
  },

  'an application publishes to every subscriber and tells whether there was one': {
    server: told,
    async client(t) {
      const [one, two, three] = [await t.websocket(), await t.websocket(), await t.websocket()];
      say(one, 'subscribe room');
      await t.logged('subscribe');
      say(two, 'subscribe room');
      await t.logged('subscribe', 2);
      t.record('to two', await t.command('publish', 'room', 'text'));
      t.record('binary', await t.command('publish', 'room', 'binary', true));
      t.record('to nobody', await t.command('publish', 'other', 'x'));
      t.record('empty', await t.command('publish', 'room', ''));
      t.record('one', await one.frames(3));
      t.record('two', await two.frames(3));
      say(three, 'send alone');
      t.record('three', await three.frame());
    },
  },

  'a socket publishes to all subscribers but itself': {
    server: told,
    async client(t) {
      const [one, two] = [await t.websocket(), await t.websocket()];
      say(one, 'publish room nobody');
      await t.logged('publish');
      say(one, 'subscribe room');
      await t.logged('subscribe');
      say(one, 'publish room alone');
      await t.logged('publish', 2);
      say(two, 'subscribe room');
      await t.logged('subscribe', 2);
      say(one, 'publish room hello');
      t.record('two', await two.frame());
      say(two, 'publish room back');
      t.record('one', await one.frame());
      await t.logged('publish', 4);
    },
  },

  'publishing to a topic one has not joined': {
    server: told,
    async client(t) {
      const [one, two] = [await t.websocket(), await t.websocket()];
      say(two, 'subscribe room');
      await t.logged('subscribe');
      say(one, 'publish room outsider');
      await t.logged('publish');
      await t.command('publish', 'room', 'from the application');
      t.record('two', await two.frame());
    },
  },

  'messages sent and published to a socket come in the order of the calls': {
    server: told,
    async client(t) {
      const wire = await t.websocket();
      say(wire, 'subscribe room');
      await t.logged('subscribe');
      say(wire, 'burst');
      t.record('frames', await wire.frames(5));
    },
  },

  'a topic may be any bytes, and the empty one too': {
    server({ uWS, listen, log }) {
      const app = uWS.App();
      listen(
        app.ws('/*', {
          open(ws) {
            log('bytes', ws.subscribe(new Uint8Array([0xe2, 0x82, 0xac])), ws.isSubscribed('€'), app.numSubscribers('€'));
            log('buffer', ws.subscribe(new TextEncoder().encode('buffer').buffer), ws.isSubscribed('buffer'));
            log('empty', ws.subscribe(''), ws.isSubscribed(''), app.numSubscribers(''));
            log('long', ws.subscribe('t'.repeat(300)), ws.isSubscribed('t'.repeat(300)));
            log(
              'topics',
              ws
                .getTopics()
                .map((topic) => topic.slice(0, 10))
                .sort(),
            );
          },
          subscription: (_ws, topic, now, before) => log('subscription', topic.byteLength, now, before),
        }),
      );
    },
    async client(t) {
      await t.websocket();
      await t.logged('topics');
    },
  },

  'subscription is told for each topic when a socket closes, before close': {
    server: (host) => told(host, { close: (_ws) => host.log('close') }),
    async client(t) {
      const wire = await t.websocket();
      say(wire, 'subscribe only');
      await t.logged('subscribe');
      say(wire, 'end');
      await t.logged('close');
    },
  },

  'topics are alive in close': {
    server({ uWS, listen, log, attempt }) {
      const app = uWS.App();
      listen(
        app.ws('/*', {
          open: (ws) => void ws.subscribe('room'),
          close: () =>
            log(
              'close',
              app.numSubscribers('room'),
              attempt(() => app.publish('room', 'gone')),
            ),
        }),
      );
      return { count: () => app.numSubscribers('room') };
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.ping));
      await wire.frame();
      wire.destroy();
      await t.logged('close');
      t.record('after', await t.command('count'));
    },
  },

  'applications do not share topics': {
    server({ uWS, listen, log }) {
      const apps = ['one', 'two'].map((name) => {
        const app = uWS.App().ws('/*', {
          open(ws) {
            ws.subscribe('room');
            log('open', name);
          },
        });
        listen(app, name);
        return app;
      });
      return {
        publish: (index, message) => apps[index].publish('room', message),
        counts: () => apps.map((app) => app.numSubscribers('room')),
      };
    },
    async client(t) {
      const one = await t.websocket('/', { to: 'one' });
      const two = await t.websocket('/', { to: 'two' });
      await t.logged('open', 2);
      t.record('counts', await t.command('counts'));
      await t.command('publish', 0, 'for one');
      await t.command('publish', 1, 'for two');
      t.record('one', await one.frame());
      t.record('two', await two.frame());
    },
  },

  'a burst of messages to a topic arrives whole and in order': {
    server({ uWS, listen }) {
      const app = uWS.App().ws('/*', { open: (ws) => void ws.subscribe('room') });
      listen(app);
      return {
        burst(count) {
          for (let i = 0; i < count; i++) app.publish('room', `message ${i}`);
        },
      };
    },
    async client(t) {
      const wires = [await t.websocket(), await t.websocket()];
      for (const wire of wires) {
        wire.write(frame(opcode.ping));
        await wire.frame();
      }
      await t.command('burst', 300);
      for (const [index, wire] of wires.entries())
        t.record(
          `wire ${index}`,
          (await wire.frames(300)).map((each) => each.payload),
        );
    },
  },

  'a publisher sees its own publishing before its next send': {
    server({ uWS, listen }) {
      const app = uWS.App();
      listen(
        app.ws('/*', {
          open: (ws) => void ws.subscribe('room'),
          message(ws) {
            app.publish('room', 'first');
            ws.cork(() => {
              ws.send('second');
              app.publish('room', 'third');
              ws.send('fourth');
            });
          },
        }),
      );
    },
    async client(t) {
      const wire = await t.websocket();
      wire.write(frame(opcode.text, 'go'));
      t.record('frames', await wire.frames(4));
    },
  },
};
