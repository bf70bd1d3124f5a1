/**
 * A real nginx for a test, on ports of its own.
 * Role: for what only a proxy written by somebody else can show. Installed by `npm test`; tests are skipped without it.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { native } from '../../ffi/bindings.ts';
import { eventually } from './eventually.ts';
import { RunningProgram } from './running-program.ts';

export interface NginxServer {
  /** Behind `listen ADDRESS`, such as 'ssl'. */
  readonly listen?: string;
  /** Lines of its server block, `location` among them. */
  readonly lines: readonly string[];
}

export interface Nginx {
  /** Where it listens, by the name of the server. */
  readonly ports: Readonly<Record<string, number>>;
  stop(): Promise<void>;
}

export function hasNginx(): boolean {
  return Bun.which('nginx') !== null;
}

export async function startNginx(servers: Readonly<Record<string, NginxServer>>): Promise<Nginx> {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-nginx-'));
  // Its workers may run as another user.
  chmodSync(folder, 0o755);
  for (const name of ['logs', 'temp']) mkdirSync(join(folder, name));
  // It takes over sockets that listen already, as from the nginx before an upgrade, so that nobody else can have their ports.
  const sockets = Object.keys(servers).map((name) => ({ name, fd: native.listenSocket('127.0.0.1', 0, 128, 0) }));
  const ports = Object.fromEntries(sockets.map(({ name, fd }) => [name, native.socketPort(fd)]));
  const blocks = Object.entries(servers).map(([name, { listen = '', lines }]) =>
    [`  server {`, `    listen 127.0.0.1:${ports[name]} ${listen};`, ...lines.map((line) => `    ${line}`), '  }'].join('\n'),
  );
  const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `  ${kind}_temp_path temp/${kind};`);
  const path = join(folder, 'nginx.conf');
  const main = ['daemon off;', 'worker_processes 1;', 'pid nginx.pid;', 'error_log stderr;', 'events {}'];
  writeFileSync(path, [...main, 'http {', '  access_log off;', ...temp, ...blocks, '}\n'].join('\n'));
  const program = new RunningProgram(['nginx', '-p', folder, '-e', 'stderr', '-c', path], {
    env: { ...process.env, NGINX: sockets.map((_, index) => `${3 + index};`).join('') },
    descriptors: sockets.map(({ fd }) => fd),
  });
  for (const { fd } of sockets) native.fdClose(fd);
  await eventually('nginx accepts', async () => {
    if (program.hasEnded) throw new Error(`nginx ended with ${await program.ended()}:\n${program.output()}`);
    return fetch(`http://127.0.0.1:${Object.values(ports)[0]}/`).catch(() => undefined);
  });
  return {
    ports,
    async stop() {
      // At once; SIGKILL would leave its worker behind.
      program.kill('SIGTERM');
      await program.ended();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
