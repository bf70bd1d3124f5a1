// A server of graphql-ws on uWebSockets.js, as its documentation has it.

import uWS from 'uWebSockets.js';
import { GraphQLError, GraphQLInt, GraphQLNonNull, GraphQLObjectType, GraphQLSchema, GraphQLString } from 'graphql';
import { makeBehavior } from 'graphql-ws/use/uWebSockets';

const schema = new GraphQLSchema({
  query: new GraphQLObjectType({
    name: 'Query',
    fields: {
      hello: { type: GraphQLString, args: { name: { type: GraphQLString } }, resolve: (_root, { name }) => `hello ${name ?? 'world'}` },
      fails: {
        type: GraphQLString,
        resolve: () => {
          throw new GraphQLError('failed as asked');
        },
      },
    },
  }),
  subscription: new GraphQLObjectType({
    name: 'Subscription',
    fields: {
      count: {
        type: GraphQLInt,
        args: { to: { type: new GraphQLNonNull(GraphQLInt) } },
        async *subscribe(_root, { to }) {
          for (let i = 1; i <= to; i++) yield { count: i };
        },
      },
      forever: {
        type: GraphQLInt,
        async *subscribe() {
          try {
            for (let i = 0; ; i++) {
              yield { forever: i };
              await new Promise((resolve) => setTimeout(resolve, 1));
            }
          } finally {
            console.log('stopped');
          }
        },
      },
    },
  }),
});

const app = uWS.App().ws(
  '/graphql',
  makeBehavior({
    schema,
    onConnect: ({ connectionParams }) => connectionParams?.token !== 'wrong',
    onDisconnect: (_context, code, reason) => console.log(`disconnected ${code} ${reason}`),
  }),
);
app.listen('127.0.0.1', Number(process.env.PORT), (token) => console.log(token ? `port ${uWS.us_socket_local_port(token)}` : 'no port'));
