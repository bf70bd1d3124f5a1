// A program for uWebSockets.js, and the same one for both: on Node, bench/package.json has the original under this name; on Bun,
// `--preload ringway/register` makes the name mean Ringway. BENCH_KEY and BENCH_CERT: files, for TLS. BENCH_DEFLATE=1: compress.
import uws from 'uWebSockets.js';

const { PORT, BENCH_KEY, BENCH_CERT, BENCH_DEFLATE } = process.env;
const app = BENCH_KEY ? uws.SSLApp({ key_file_name: BENCH_KEY, cert_file_name: BENCH_CERT }) : uws.App();
const compress = BENCH_DEFLATE === '1';
let users = 0;

app.get('/hello', (response) => {
  response.writeHeader('content-type', 'text/plain;charset=UTF-8').end('Hello from Ringway');
});

app.ws('/echo', {
  message: (socket, message, isBinary) => socket.send(message, isBinary),
});

app.ws('/room/:name', {
  compression: compress ? uws.SHARED_COMPRESSOR : uws.DISABLED,
  upgrade: (response, request, context) => upgrade(response, request, context, { room: `room/${request.getParameter(0)}` }),
  open: (socket) => socket.subscribe(socket.getUserData().room),
  message: (socket, message, isBinary) => app.publish(socket.getUserData().room, message, isBinary, compress),
});

app.ws('/user', {
  upgrade: (response, request, context) => upgrade(response, request, context, { id: users++, isOpen: false }),
  open: (socket) => {
    socket.getUserData().isOpen = true;
  },
});

function upgrade(response, request, context, userData) {
  const [key, protocol, extensions] = ['key', 'protocol', 'extensions'].map((name) => request.getHeader(`sec-websocket-${name}`));
  response.upgrade(userData, key, protocol, extensions, context);
}

app.listen(Number(PORT), (listening) => {
  if (!listening) process.exit(1);
});
