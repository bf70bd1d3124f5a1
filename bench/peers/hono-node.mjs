// Hono on Node, through Hono's own adapter.
import { serve } from '@hono/node-server';
import { Hono } from 'hono';

const app = new Hono();
app.get('/hello', (c) => c.text('Hello from Ringway'));

serve({ fetch: app.fetch, port: Number(process.env.PORT) });
