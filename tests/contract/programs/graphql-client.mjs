// What a client of graphql-ws sees, as lines: node graphql-client.mjs <port>
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';

const url = `ws://127.0.0.1:${process.argv[2]}/graphql`;
const say = (...values) => console.log(JSON.stringify(values));
const connect = (connectionParams, more = {}) =>
  createClient({ url, webSocketImpl: WebSocket, connectionParams, retryAttempts: 0, lazyCloseTimeout: 0, ...more });

async function all(client, query, variables) {
  const results = [];
  try {
    for await (const result of client.iterate({ query, variables })) results.push(result);
  } catch (error) {
    results.push({ thrown: error.message ?? (Array.isArray(error) ? error.map((each) => each.message) : [error.code, error.reason]) });
  }
  return results;
}

const client = connect({ token: 'right' }, { lazy: false });
say('query', await all(client, '{ hello }'));
say('variables', await all(client, 'query ($name: String) { hello(name: $name) }', { name: 'you' }));
say('subscription', await all(client, 'subscription { count(to: 3) }'));
say('error of a resolver', await all(client, '{ fails }'));
say('error of the query', await all(client, '{ nothingOfThatName }'));
say('at once', await Promise.all([1, 2, 3, 4].map((to) => all(client, `subscription { count(to: ${to}) }`))));

const endless = client.iterate({ query: 'subscription { forever }' });
const first = await endless.next();
const second = await endless.next();
await endless.return();
say('cancelled after', first.value, second.value);
await client.dispose();

say('not allowed', await all(connect({ token: 'wrong' }), '{ hello }'));

const plain = new WebSocket(url, 'another-protocol');
const ended = await new Promise((resolve) => {
  plain.on('close', (code, reason) => resolve([code, String(reason)]));
  plain.on('error', () => resolve('refused'));
});
say('another protocol', ended);
say('done');
process.exit(0);
