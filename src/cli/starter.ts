/** The config that `ringway init` writes. A test loads and checks it. */
export const starterConfig = `import { Hono } from 'hono';
import { defineGateway } from 'ringway';

const app = new Hono();

app.get('/', (c) => c.text('Hello from Ringway'));

export default defineGateway({
  // Every HTTP request goes to the Hono app.
  fetch: app,

  // WebSockets by path.
  websocket: {
    // Sends every message back.
    '/echo': {
      message(socket, message) {
        socket.send(message);
      },
    },

    // Everybody in a room gets what anybody in it says.
    '/room/:name': {
      open(socket) {
        socket.subscribe(\`room/\${socket.params.name}\`);
      },
      message(socket, message) {
        socket.publish(\`room/\${socket.params.name}\`, message);
      },
    },
  },

  // Defaults, which the environment may override: PORT=8080, ADMIN_PORT=9100 (health and metrics, this machine only), WORKERS=auto.
  // Your editor shows every other option and its default.
});
`;
