/** The example, which REDIS_URL joins with others, and a publisher that does not subscribe to what it publishes. */
import example from '../../gateway.config.ts';
import { defineGateway, publish } from '../../src/index.ts';

export default defineGateway({
  ...example,
  websocket: {
    ...example.websocket,
    '/publisher/:name': { message: (socket, message) => publish(`room/${socket.params.name}`, message) },
  },
});
