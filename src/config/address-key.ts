/** Addresses of two configs, or of the supervisor's reading and a worker's, compared. Role: used by both for their listening sockets. */
import type { ListenAddress } from './resolve.ts';

/** What makes two addresses the same one. */
export function keyOf(address: ListenAddress): string {
  if (address.kind === 'unix') return `unix ${address.path}`;
  return `tcp ${address.host.toLowerCase()} ${address.port}${address.ipv6Only ? ' ipv6Only' : ''}`;
}
