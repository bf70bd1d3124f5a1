// A server of Fastify on uWebSockets.js, through the adapter that the environment names.
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import fastify from 'fastify';

const { serverFactory } = await import(process.env.PACKAGE);
const app = fastify({ serverFactory, bodyLimit: 8 << 20 });

app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
app.addHook('onRequest', async (request) => {
  request.began = request.raw.url;
});
app.addHook('preHandler', async (request, reply) => {
  await new Promise((resolve) => setImmediate(resolve));
  reply.header('x-began', request.began);
});

app.get('/', async () => ({ hello: 'world' }));
app.get('/users/:id', (request, reply) => reply.send({ id: request.params.id, query: request.query, agent: request.headers['x-agent'] }));
app.post('/json', async (request) => ({ got: request.body }));
app.put('/bytes', async (request) => ({
  bytes: request.body.length,
  hash: createHash('sha1').update(request.body).digest('hex'),
}));
app.post(
  '/checked',
  { schema: { body: { type: 'object', required: ['name'], properties: { name: { type: 'string' } } } } },
  async (request) => request.body.name,
);
app.delete('/users/:id', (_request, reply) => reply.code(204).send());
app.get('/stream', (_request, reply) => reply.type('text/plain').send(Readable.from(['one ', 'two ', 'three'])));
app.get('/large', (_request, reply) => reply.send(Buffer.alloc(3_000_000, 'large')));
app.get('/fails', async () => {
  throw Object.assign(new Error('on purpose'), { statusCode: 418 });
});

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) });
console.log(`port ${process.env.PORT}`);
