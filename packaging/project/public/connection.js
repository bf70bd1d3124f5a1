/**
 * A connection to the gateway that comes back by itself: it waits longer after each failure, at random, so that clients do not all come back
 * at once, and subscribes again to what it was subscribed to.
 *
 *     const connection = new Connection('/ws', { onState: (state) => console.log(state) });
 *     const stop = connection.subscribe('chat/lobby', (data) => console.log(data));
 *     connection.publish('chat/lobby', { text: 'hello' });
 *
 * @typedef {'connecting' | 'open' | 'waiting' | 'closed'} State 'waiting': it tries again in a while; 'closed': for good
 */

const firstDelayMs = 250;
const longestDelayMs = 15_000;
/** Policy violation (RFC 6455 §7.4.1): the gateway does not want this client, and trying again would not change that. */
const policyViolation = 1008;

export class Connection {
  /** @type {string} */ #url;
  /** @type {(state: State) => void} */ #onState;
  /** @type {WebSocket | undefined} */ #socket;
  /** @type {Map<string, Set<(data: any) => void>>} */ #listeners = new Map();
  #failures = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {State} */ #state = 'connecting';

  /**
   * @param {string} path such as '/ws', or a whole URL
   * @param {{ onState?: (state: State) => void }} [options] onState: told of every change, and of the state at first
   */
  constructor(path, { onState = () => {} } = {}) {
    // Bun, Deno and Node have no location: there it is a whole URL.
    this.#url = new URL(path, globalThis.location?.href).href.replace(/^http/, 'ws');
    this.#onState = onState;
    // A laptop that wakes up need not wait.
    globalThis.addEventListener?.('online', this.#retryNow);
    this.#connect();
  }

  get state() {
    return this.#state;
  }

  /**
   * @param {string} topic
   * @param {(data: any) => void} listener called with what is published
   * @returns {() => void} stops it
   */
  subscribe(topic, listener) {
    const listeners = this.#listeners.get(topic);
    if (listeners !== undefined) listeners.add(listener);
    else {
      this.#listeners.set(topic, new Set([listener]));
      this.#send({ type: 'subscribe', topic });
    }
    return () => {
      const left = this.#listeners.get(topic);
      if (!left?.delete(listener) || left.size > 0) return;
      this.#listeners.delete(topic);
      this.#send({ type: 'unsubscribe', topic });
    };
  }

  /**
   * @param {string} topic
   * @param {unknown} data anything that JSON can say
   * @returns {boolean} false: there is no connection, and nothing was sent
   */
  publish(topic, data) {
    return this.#send({ type: 'publish', topic, data });
  }

  /** For good. */
  close() {
    globalThis.removeEventListener?.('online', this.#retryNow);
    clearTimeout(this.#timer);
    this.#setState('closed');
    this.#socket?.close(1000);
  }

  #connect() {
    this.#setState('connecting');
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => {
      this.#failures = 0;
      this.#setState('open');
      for (const topic of this.#listeners.keys()) this.#send({ type: 'subscribe', topic });
    };
    socket.onmessage = ({ data }) => {
      const { topic, data: published } = JSON.parse(data);
      for (const listener of this.#listeners.get(topic) ?? []) listener(published);
    };
    // An error is always followed by a close.
    socket.onclose = ({ code }) => {
      if (this.#state === 'closed') return;
      if (code === policyViolation) return this.close();
      this.#setState('waiting');
      const longest = Math.min(longestDelayMs, firstDelayMs * 2 ** this.#failures++);
      this.#timer = setTimeout(() => this.#connect(), longest / 2 + (Math.random() * longest) / 2);
    };
  }

  #retryNow = () => {
    if (this.#state !== 'waiting') return;
    clearTimeout(this.#timer);
    this.#connect();
  };

  /** @param {object} call */
  #send(call) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(call));
    return true;
  }

  /** @param {State} state */
  #setState(state) {
    this.#state = state;
    this.#onState(state);
  }
}
