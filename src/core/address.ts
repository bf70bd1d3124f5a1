/**
 * Addresses as text.
 * Role: pure; bytes from the core → what handlers see. Up: http-commands.ts.
 */
import ipaddr from 'ipaddr.js';

/** 4 or 16 bytes in network order, as inet_ntop(3) writes them; an IPv4 address in IPv6 (::ffff:a.b.c.d) as the IPv4 address it is. */
export function addressText(bytes: Uint8Array): string {
  const address = ipaddr.fromByteArray([...bytes]);
  return address instanceof ipaddr.IPv6 && address.isIPv4MappedAddress() ? address.toIPv4Address().toString() : address.toString();
}
