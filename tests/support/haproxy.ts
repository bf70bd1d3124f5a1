/**
 * A real haproxy for a test, on ports of its own.
 * Role: for what only a proxy written by somebody else can show. Installed by `npm test`; tests are skipped without it.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { native } from '../../ffi/bindings.ts';
import { eventually } from './eventually.ts';
import { RunningProgram } from './running-program.ts';

export interface Way {
  readonly mode: 'tcp' | 'http';
  /** Behind `bind ADDRESS`, such as 'ssl crt FILE'; not of the first way. */
  readonly bind?: string;
  /** More lines, such as 'option forwardfor'. */
  readonly options?: readonly string[];
  /** What stands behind `server NAME`: an address and its options. */
  readonly server: string;
}

export interface Balancer {
  /** Where it listens, by the name of the way. */
  readonly ports: Readonly<Record<string, number>>;
  /** What it has said so far. */
  output(): string;
  stop(): Promise<void>;
}

export function hasBalancer(): boolean {
  return Bun.which('haproxy') !== null;
}

export async function startBalancer(ways: Readonly<Record<string, Way>>): Promise<Balancer> {
  const folder = mkdtempSync(join(tmpdir(), 'ringway-haproxy-'));
  const path = join(folder, 'haproxy.cfg');
  // It takes over sockets that listen already, so that nobody else can have their ports.
  const sockets = Object.keys(ways).map((name) => ({ name, fd: native.listenSocket('127.0.0.1', 0, 128, 0) }));
  const ports = Object.fromEntries(sockets.map(({ name, fd }) => [name, native.socketPort(fd)]));
  const sections = Object.entries(ways).map(([name, { mode, bind = '', options = [], server }], index) =>
    [`listen ${name}`, `mode ${mode}`, `bind fd@${3 + index} ${bind}`, ...options, `server gateway ${server}`].join('\n  '),
  );
  const timeouts = 'defaults\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n  timeout tunnel 60s\n  timeout check 10s';
  writeFileSync(path, `${[timeouts, ...sections].join('\n\n')}\n`);
  const program = new RunningProgram(['haproxy', '-db', '-f', path], { descriptors: sockets.map(({ fd }) => fd) });
  for (const { fd } of sockets) native.fdClose(fd);
  await eventually('haproxy accepts', async () => {
    if (program.hasEnded) throw new Error(`haproxy ended with ${await program.ended()}:\n${program.output()}`);
    const tried = await fetch(`http://127.0.0.1:${Object.values(ports)[0]}/`).catch(() => undefined);
    return tried !== undefined;
  });
  return {
    ports,
    output: () => program.output(),
    async stop() {
      await program.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
