// What the servers of several scenarios do. Plain JavaScript: it is loaded by Node on the original, and by Bun on Ringway.

/** The bytes of an ArrayBuffer as text, each as one character. */
export function text(buffer) {
  return Buffer.from(buffer).toString('latin1');
}

/** Every handler of a behavior, logging what it gets; `more` replaces some. */
export function logging(log, more = {}) {
  return {
    open: (ws) => log('open', Object.keys(ws)),
    message: (_ws, message, isBinary) => log('message', text(message), isBinary),
    drain: () => log('drain'),
    close: (_ws, code) => log('close', code),
    ping: (_ws, message) => log('ping', text(message)),
    pong: (_ws, message) => log('pong', text(message)),
    subscription: (_ws, topic, now, before) => log('subscription', text(topic), now, before),
    ...more,
  };
}
