// The process that one scenario's server runs in, under Node on the original or under Bun on Ringway.
//
//     host.mjs <module with scenarios> <name of the scenario>
//
// It speaks JSON lines: on stdout what the server has logged, in order, and the ports it listens on; on stdin commands for it.

import uWS from 'uWebSockets.js';
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';

const [modulePath = '', name = ''] = process.argv.slice(2);

/** @param {object} line */
function say(line) {
  // At once and whole, so that nothing is lost when the process ends right after.
  writeSync(1, `${JSON.stringify(line)}\n`);
}

/** What JSON cannot hold, as something that tells it apart. @param {unknown} value @returns {unknown} */
function plain(value) {
  if (value === undefined) return 'undefined';
  if (value instanceof ArrayBuffer) return { arrayBuffer: Buffer.from(value).toString('latin1') };
  if (ArrayBuffer.isView(value))
    return { [value.constructor.name]: Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1') };
  if (value instanceof Error) return { [value.name]: value.message };
  if (typeof value === 'function') return `function ${value.name}`;
  if (Array.isArray(value)) return value.map(plain);
  return value;
}

/** @param {string} event @param {unknown[]} values */
function log(event, ...values) {
  say({ log: [event, ...values.map(plain)] });
}

/** What a call gives, or the error it throws. @param {() => unknown} call */
function attempt(call) {
  try {
    return call();
  } catch (error) {
    return error;
  }
}

/** Listen on a free port, and tell it under a name. */
function listen(app, label = 'main') {
  app.listen('127.0.0.1', 0, (token) => say({ port: token ? uWS.us_socket_local_port(token) : false, label }));
  return app;
}

process.on('unhandledRejection', (error) => log('unhandledRejection', error));

const { scenarios } = await import(modulePath);
const commands = { settle() {}, ...(await scenarios[name].server({ uWS, log, attempt, listen })) };
say({ ready: true });

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...values] = JSON.parse(line);
  const result = await commands[command](...values);
  say({ done: command, result: plain(result) });
}
process.exit(0);
