import { defineGateway } from 'ringway';
import { natsLink } from './nats-link.ts';

// ringway start -c examples/nats-link/gateway.config.ts, on as many machines as you like.
export default defineGateway({
  link: natsLink({ servers: (process.env.NATS_URL ?? 'nats://127.0.0.1:4222').split(',') }),
  websocket: {
    '/room/:name': {
      open: (socket) => socket.subscribe(socket.params.name),
      message(socket, message) {
        if (socket.publish(socket.params.name, message) !== 'accepted') socket.send('only this node hears you now');
      },
    },
  },
});
