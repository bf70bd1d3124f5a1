/**
 * `trustedProxies`: addresses and ranges as the core takes them.
 * Role: a part of resolve.ts. What is done with them: ringway.h rw_core_trusted_proxies().
 */
import ipaddr from 'ipaddr.js';
import type { TrustedProxiesOptions } from '../api/define.ts';
import type { AddressRange } from '../core/options.ts';
import { defaults, trustedProxiesMax } from './defaults.ts';
import { show } from './show.ts';
import type { Complain } from './tls.ts';

export interface TrustedProxiesSettings {
  readonly ranges: readonly AddressRange[];
  readonly header: 'x-forwarded-for' | 'forwarded' | 'none';
}

const mappedBits = 96;

export function resolveTrustedProxies(options: TrustedProxiesOptions, complain: Complain): TrustedProxiesSettings {
  const path = ['trustedProxies', 'addresses'];
  if (options.addresses.length === 0) complain(path, 'is an empty list; write the addresses of your proxies, or remove trustedProxies');
  if (options.addresses.length > trustedProxiesMax)
    complain(path, `has ${options.addresses.length} ranges; write at most ${trustedProxiesMax}`);
  const ranges = options.addresses.flatMap((written, index) => {
    const range = parseRange(written);
    if (typeof range !== 'string') return [range];
    complain([...path, index], range);
    return [];
  });
  return { ranges, header: options.header ?? defaults.trustedProxies.header };
}

/** ret: the range, or what is wrong with it */
function parseRange(written: string): AddressRange | string {
  const isRange = written.includes('/');
  const wrong = `is ${show(written)}; write an IP address or a range such as '10.0.0.0/8' or 'fd00::/8'`;
  // ipaddr.js also takes '10.1' for 10.0.0.1, which nobody means.
  const host = isRange ? written.slice(0, written.indexOf('/')) : written;
  const isAddress = ipaddr.IPv4.isValidFourPartDecimal(host) || ipaddr.IPv6.isValid(host);
  // Which interface an address is reached by tells nothing about whose it is.
  if (!isAddress || host.includes('%')) return wrong;
  if (isRange && !ipaddr.isValidCIDR(written)) return wrong;
  const [address, bits] = isRange ? ipaddr.parseCIDR(written) : [ipaddr.parse(written), undefined];
  const isIPv4 = address.kind() === 'ipv4';
  const wide = isIPv4 ? (address as ipaddr.IPv4).toIPv4MappedAddress() : (address as ipaddr.IPv6);
  const prefixBits = (bits ?? (isIPv4 ? 32 : 128)) + (isIPv4 ? mappedBits : 0);
  return { address: Uint8Array.from(wide.toByteArray()), prefixBits };
}
