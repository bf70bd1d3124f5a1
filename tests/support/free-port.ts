/** Below the ports that the system gives out by itself, so that no passing connection takes one; those of a Redis Cluster's bus are among them too. */
const portRange = [12_000, 31_000] as const;

const given = new Set<number>();

/**
 * A port on which nobody listens now, for what must know its port before it starts; each is given once. Another process may still take it
 * first: where one can, take port 0.
 */
export function freePort(): number {
  for (;;) {
    const port = portRange[0] + Math.floor(Math.random() * (portRange[1] - portRange[0]));
    if (given.has(port)) continue;
    try {
      Bun.listen({ hostname: '0.0.0.0', port, socket: { data() {} } }).stop(true);
    } catch {
      continue;
    }
    given.add(port);
    return port;
  }
}
