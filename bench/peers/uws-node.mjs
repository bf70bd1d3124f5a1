// uWebSockets.js on Node, from the unofficial npm build.
import { createRequire } from 'node:module';

/** @type {any} it has typings of its own only where it is installed */
const uws = createRequire(import.meta.url)('uwebsockets');

const app = uws.App();

app.get('/hello', (response) => {
  response.writeHeader('content-type', 'text/plain;charset=UTF-8').end('Hello from Ringway');
});

app.ws('/echo', {
  message: (socket, message, isBinary) => socket.send(message, isBinary),
});

app.ws('/room/:name', {
  upgrade(response, request, context) {
    response.upgrade(
      { room: `room/${request.getParameter(0)}` },
      request.getHeader('sec-websocket-key'),
      request.getHeader('sec-websocket-protocol'),
      request.getHeader('sec-websocket-extensions'),
      context,
    );
  },
  open: (socket) => socket.subscribe(socket.getUserData().room),
  message: (socket, message, isBinary) => app.publish(socket.getUserData().room, message, isBinary),
});

app.listen(Number(process.env.PORT), (listening) => {
  if (!listening) process.exit(1);
});
