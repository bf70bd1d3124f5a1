/** Centrifugo, built from the Go module proxy into a folder of the bench's own, and its configuration. */
import { execFileSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const version = 'v6.9.1';
const folder = join(import.meta.dir, '../centrifugo');
export const centrifugoProgram = join(folder, `centrifugo-${version}`, 'centrifugo');

/** Go is needed, and some minutes when it is built for the first time. */
export function ensureCentrifugo(): void {
  if (existsSync(centrifugoProgram)) return;
  console.error(`Building Centrifugo ${version}`);
  execFileSync('go', ['install', `github.com/centrifugal/centrifugo/v6@${version}`], {
    env: { ...process.env, GOBIN: join(folder, `centrifugo-${version}`), GOFLAGS: '-trimpath' },
    stdio: ['ignore', 2, 2],
  });
}

const remembers = { history_size: 100, history_ttl: '300s' };
/** Nobody is told of joins and leaves: that is by how many look on, and no part of what one costs. */
const isPresent = { presence: true };

/** The namespaces are the kinds of topics of peers/topics.config.ts. ret: path of the file */
export function writeCentrifugoConfig(port: number, redisUrl: string | undefined): string {
  const file = join(tmpdir(), `ringway-bench-centrifugo-${process.pid}-${port}.json`);
  const namespaces = [
    { name: 'logged', ...remembers, force_positioning: true, force_recovery: true },
    { name: 'direct' },
    { name: 'present', ...isPresent },
    { name: 'known', ...remembers, force_positioning: true, force_recovery: true, ...isPresent },
    { name: 'plain' },
  ];
  const config = {
    http_server: { port: String(port), address: '127.0.0.1' },
    log: { level: 'error' },
    client: { insecure: true, allowed_origins: ['*'], channel_limit: 1000 },
    http_api: { insecure: true },
    channel: { namespaces },
    ...(redisUrl === undefined ? {} : { engine: { type: 'redis', redis: { address: redisUrl } } }),
  };
  writeFileSync(file, JSON.stringify(config));
  return file;
}
