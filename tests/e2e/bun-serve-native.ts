/** Bun.serve with the handler of bun-serve-handler.ts: prints its port. */
import { handler } from './bun-serve-handler.ts';

const failed = () => new Response('Internal Server Error', { status: 500, headers: { 'content-type': 'text/plain;charset=utf-8' } });
const server = Bun.serve({ port: 0, hostname: '127.0.0.1', development: false, fetch: handler, error: failed });
console.log('port', server.port);
