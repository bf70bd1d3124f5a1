// A server of socket.io on uWebSockets.js, as its documentation has it; of the version, and with the options, that the environment names.

import uWS from 'uWebSockets.js';

const { Server } = await import(process.env.PACKAGE ?? 'socket.io');
const app = uWS.App();
const io = new Server({ serveClient: false, ...JSON.parse(process.env.OPTIONS ?? '{}') });
io.attachApp(app);

io.on('connection', (socket) => {
  socket.on('echo', (...values) => {
    const answer = values.pop();
    answer(values);
  });
  socket.on('join', (room, done) => {
    socket.join(room);
    done([...socket.rooms].length);
  });
  socket.on('leave', (room, done) => {
    socket.leave(room);
    done([...socket.rooms].length);
  });
  socket.on('to others', (room, value) => socket.to(room).emit('said', value));
  socket.on('to the room', (room, value) => io.to(room).emit('said', value));
  socket.on('to all', (value) => io.emit('said', value));
  socket.on('to two rooms', (value) => io.to('red').to('blue').except('quiet').emit('said', value));
  socket.on('ask me', async (done) => done(await socket.timeout(5000).emitWithAck('question', 6)));
  socket.on('how many', async (done) => done((await io.fetchSockets()).length));
  socket.on('bye', () => socket.disconnect(true));
});

io.of('/news').use((socket, next) => next(socket.handshake.auth.token === 'right' ? undefined : new Error('not allowed')));
io.of('/news').on('connection', (socket) => socket.emit('headline', { text: 'namespace', at: new Uint8Array([1, 2, 3]) }));

app.listen('127.0.0.1', Number(process.env.PORT), (token) => console.log(token ? `port ${uWS.us_socket_local_port(token)}` : 'no port'));
