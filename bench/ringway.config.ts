/** The example gateway on an I/O backend of the bench's choice. Without `--backend` the example itself is measured. */
import example from '../gateway.config.ts';
import { defineGateway } from '../src/index.ts';

export default defineGateway({ ...example, io: { backend: process.env.BENCH_BACKEND === 'epoll' ? 'epoll' : 'io_uring' } });
