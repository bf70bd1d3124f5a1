/** What lies in docker/ holds together: the seccomp profile, compose.yml and the load balancer's configuration. */
import { describe, expect, test } from 'bun:test';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { defaults } from '../../../src/config/defaults.ts';
import { websocketDefaults } from '../../../src/config/websocket-options.ts';

const root = resolve(import.meta.dir, '../../..');
const source = (path: string) => readFileSync(join(root, 'docker', path), 'utf8');

interface Rule {
  readonly names: readonly string[];
  readonly action: string;
}

describe('seccomp.json', () => {
  const profile = JSON.parse(source('seccomp.json')) as { syscalls: Rule[] };
  const own = profile.syscalls.at(-1);
  const asDocker = { ...profile, syscalls: profile.syscalls.slice(0, -1) };

  test("is Docker's default profile, and three system calls more", () => {
    // Of that profile as JSON without white space: what seccomp.DefaultProfile() of github.com/moby/profiles/seccomp v0.2.4 gives.
    const digest = '4dc1298afa7676147c1320afa42d72691fc55379ae762b392b56853574a7a38a';
    expect(new Bun.CryptoHasher('sha256').update(JSON.stringify(asDocker)).digest('hex')).toBe(digest);
    expect(own?.names).toEqual(['io_uring_enter', 'io_uring_register', 'io_uring_setup']);
    // No condition: neither a capability nor an argument.
    expect(Object.keys(own ?? {}).toSorted()).toEqual(['action', 'comment', 'names']);
    expect(own?.action).toBe('SCMP_ACT_ALLOW');
  });

  test('the three are not in what Docker allows', () => {
    expect(asDocker.syscalls.flatMap(({ names }) => names).filter((name) => name.startsWith('io_uring'))).toEqual([]);
  });

  test('its license lies beside it', () => {
    expect(source('seccomp.LICENSE')).toContain('Apache License');
    expect(source('seccomp.NOTICE')).toContain('v0.2.4');
  });
});

interface Service {
  readonly image: string;
  readonly ports?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly healthcheck?: object;
  readonly stop_grace_period: string;
  readonly ulimits?: { readonly nofile: { readonly soft: number; readonly hard: number } };
  readonly security_opt?: readonly string[];
  readonly read_only?: boolean;
  readonly volumes?: readonly string[];
}

const seconds = (text: string | undefined) => {
  const [, number, unit] = /^(\d+)(s|m|h)$/.exec(text ?? '') ?? [];
  return Number(number) * { s: 1, m: 60, h: 3600 }[unit as 's' | 'm' | 'h'];
};

describe('compose.yml', () => {
  const { services } = Bun.YAML.parse(source('compose.yml')) as { services: Readonly<Record<string, Service>> };
  const nodes = Object.entries(services).filter(([, service]) => service.image === 'ringway');

  test('has two nodes that Redis joins, and starts each when what it needs is healthy', () => {
    expect(nodes.map(([name]) => name)).toEqual(['node-1', 'node-2']);
    for (const [, node] of nodes) {
      expect(node.environment?.REDIS_URL).toBe('redis://redis:6379');
      expect(node.depends_on).toEqual({ redis: { condition: 'service_healthy' } });
    }
    expect(services.balancer?.depends_on).toEqual(Object.fromEntries(nodes.map(([name]) => [name, { condition: 'service_healthy' }])));
    // The image of the nodes has one.
    for (const service of Object.values(services)) expect(service.image === 'ringway' || service.healthcheck !== undefined).toBe(true);
  });

  test('gives nodes descriptors, io_uring, the time to drain, and nothing to write to', () => {
    for (const [, node] of nodes) {
      expect(seconds(node.stop_grace_period)).toBeGreaterThan(defaults.drain.timeout);
      expect(node.ulimits?.nofile.soft).toBeGreaterThanOrEqual(defaults.limits.maxConnections);
      const profile = node.security_opt?.find((entry) => entry.startsWith('seccomp='))?.replace('seccomp=', '');
      expect(existsSync(join(root, 'docker', profile ?? 'none'))).toBe(true);
      expect(node.read_only).toBe(true);
    }
  });

  test('publishes only the balancer to other machines', () => {
    const published = Object.entries(services).flatMap(([name, service]) => (service.ports ?? []).map((port) => `${name} ${port}`));
    expect(published).toEqual(['node-1 127.0.0.1:9101:9100', 'node-2 127.0.0.1:9102:9100', 'balancer 8080:8080']);
    for (const volume of Object.values(services).flatMap((service) => service.volumes ?? []))
      expect(existsSync(join(root, 'docker', volume.split(':')[0] ?? ''))).toBe(true);
  });

  test('has a balancer that knows the nodes, and whose times fit those of the gateway', () => {
    const balancer = source('haproxy.cfg');
    const time = (name: string) => seconds(new RegExp(`^ +${name} (\\d+[smh])$`, 'm').exec(balancer)?.[1]);
    const servers = [...balancer.matchAll(/^ +server (\S+) (\S+):(\d+)$/gm)].map(([, ...words]) => words);
    expect(servers).toEqual(nodes.map(([name]) => [name, name, String(defaults.listen.port)]));
    // A silent WebSocket is kept by pings.
    expect(time('timeout tunnel')).toBeGreaterThan(websocketDefaults.pingInterval);
    expect(time('hard-stop-after')).toBeLessThan(seconds(services.balancer?.stop_grace_period));
    const connections = Number(/^ +maxconn (\d+)$/m.exec(balancer)?.[1]);
    expect(services.balancer?.ulimits?.nofile.soft).toBeGreaterThan(2 * connections);
  });
});
