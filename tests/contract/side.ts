/**
 * One side of a comparison: the process a scenario's server runs in, and the client that drives it and keeps the transcript.
 *
 * Role: between the scenarios, which say what happens, and compare.ts, which looks at the two transcripts.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { handshake } from '../support/frames.mjs';
import { freePort } from '../support/free-port.ts';
import { type ConnectOptions, NotedConnection } from './noted-connection.ts';
import { commandLine, here, Program, type Side } from './program.ts';

/** What was seen on one side; JSON values throughout. */
export interface Transcript {
  /** What the client has noted, by label. */
  readonly client: Record<string, unknown>;
  /** What the server has logged, in order: the event's name, then its values. */
  readonly server: readonly (readonly [string, ...unknown[]])[];
  /** 'lives', or how it ended by itself. */
  readonly process: string;
}

/** What one side does that the other does not, with the reason: asserted as it is written here. */
export type Difference = {
  /** Its name in docs/uws.md. */
  readonly id: string;
  /** Left out of a step that is not taken there. */
  readonly original?: unknown;
  readonly ours: unknown;
} & ({ readonly step: string } | { readonly event: string } | { readonly process: true });

export interface Scenario {
  /** Runs in the host process; gives the commands that the client can call. */
  readonly server: (host: never) => unknown;
  readonly client: (client: Client) => Promise<void>;
  readonly differences?: readonly Difference[];
  /** Of the server's process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Only newer builds of the original do what it compares. */
  readonly isNewer?: true;
  /** For what the original's build lacks: the whole transcript that Ringway must give. */
  readonly ours?: Omit<Transcript, 'process'>;
}

interface HostLine {
  readonly log?: [string, ...unknown[]];
  readonly port?: number | false;
  readonly label?: string;
  readonly ready?: true;
  readonly done?: string;
  readonly result?: unknown;
}

/** The process of a server, and what its lines mean. */
class Host {
  readonly program: Program;
  readonly server: [string, ...unknown[]][] = [];
  readonly ports: Record<string, number | false> = {};
  readonly results: unknown[] = [];
  isReady = false;

  constructor(side: Side, modulePath: string, name: string, folder: string, env: Readonly<Record<string, string>> = {}) {
    const command = commandLine(side, join(here, 'host.mjs'), [modulePath, name]);
    this.program = new Program(command, { onLine: (line) => this.#take(line), env: { TMPDIR: folder, ...env } });
  }

  #take(text: string): void {
    if (!text.startsWith('{')) return;
    const line: HostLine = JSON.parse(text);
    if (line.log !== undefined) this.server.push(line.log);
    if (line.label !== undefined) this.ports[line.label] = line.port ?? false;
    if (line.ready) this.isReady = true;
    if (line.done !== undefined) this.results.push(line.result);
  }
}

/** What a scenario's client part has at hand. */
export class Client {
  readonly side: Side;
  readonly notes: Record<string, unknown> = {};
  readonly #host: Host;
  readonly #wires: NotedConnection[] = [];

  constructor(side: Side, host: Host) {
    this.side = side;
    this.#host = host;
  }

  /** Note what was seen. Each label once. */
  record(label: string, value: unknown): void {
    if (label in this.notes) throw new Error(`recorded twice: ${label}`);
    this.notes[label] = value === undefined ? 'undefined' : JSON.parse(JSON.stringify(value));
  }

  port(label = 'main'): number {
    const port = this.#host.ports[label];
    if (typeof port !== 'number') throw new Error(`the server does not listen as ${label}`);
    return port;
  }

  freePort(): number {
    return freePort();
  }

  get stderr(): string {
    return this.#host.program.err;
  }

  /** All that the server has logged so far under a name. */
  events(event: string): unknown[][] {
    return this.#host.server.filter(([name]) => name === event).map(([, ...values]) => values);
  }

  /** Wait until the server has logged an event so many times. */
  async logged(event: string, count = 1): Promise<void> {
    await this.#host.program.until(`${count} × ${event}`, () => this.events(event).length >= count);
  }

  async stderrHas(text: string): Promise<void> {
    await this.#host.program.until(`${text} on stderr`, () => this.stderr.includes(text));
  }

  async processEnds(): Promise<void> {
    await this.#host.program.outcome();
  }

  /** Let the server do something. ret: what its command gives */
  async command(name: string, ...values: unknown[]): Promise<unknown> {
    const before = this.#host.results.length;
    this.#host.program.write(JSON.stringify([name, ...values]));
    await this.#host.program.until(`the command ${name} is done`, () => this.#host.results.length > before);
    return this.#host.results[before];
  }

  async connect(options: ConnectOptions & { readonly to?: string } = {}): Promise<NotedConnection> {
    const wire = await NotedConnection.connect(options.path === undefined ? this.port(options.to) : 0, options);
    this.#wires.push(wire);
    return wire;
  }

  /** One request on a connection of its own; its answer is noted, or that the connection was closed. */
  async exchange(label: string, request: string | Uint8Array, options: ConnectOptions & { readonly to?: string } = {}): Promise<string> {
    const wire = await this.connect(options);
    wire.write(request);
    const answer = await wire.response(/^\w+/.exec(String(request))?.[0]);
    this.record(label, answer);
    wire.destroy();
    return answer;
  }

  /** A GET of a path with nothing but what must be there. */
  async get(path: string, label = `GET ${path}`, options: ConnectOptions & { readonly to?: string } = {}): Promise<string> {
    return this.exchange(label, `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`, options);
  }

  /** A connection after its handshake; the answer to it is noted only when there is a label. */
  async websocket(
    path = '/',
    options: ConnectOptions & { readonly to?: string; readonly fields?: Record<string, string | undefined>; readonly label?: string } = {},
  ): Promise<NotedConnection> {
    const wire = await this.connect(options);
    wire.write(handshake(path, options.fields));
    const head = await wire.head();
    if (options.label !== undefined) this.record(options.label, head);
    else if (!head.startsWith('HTTP/1.1 101 ')) throw new Error(`the handshake was refused: ${head}`);
    return wire;
  }

  /** Until all that the server has logged by now is here. */
  async settle(): Promise<void> {
    if (this.#host.program.isAlive) await this.command('settle').catch(() => {});
  }

  close(): void {
    for (const wire of this.#wires) wire.destroy();
  }
}

/** Run a scenario on one side. */
export async function runScenario(side: Side, modulePath: string, name: string, scenario: Scenario): Promise<Transcript> {
  // Of its own, since a server that is killed cleans up nothing.
  const folder = await mkdtemp(join(tmpdir(), 'ringway-contract-'));
  const host = new Host(side, modulePath, name, folder, scenario.env);
  const client = new Client(side, host);
  let ended = 'lives';
  let server: Transcript['server'] = [];
  try {
    await host.program.until('the server is ready', () => host.isReady);
    await scenario.client(client);
    await client.settle();
    // As it is now: what our leaving still causes comes or does not come in time.
    server = [...host.server];
  } catch (error) {
    throw new Error(`${side}: ${error instanceof Error ? error.message : error}`);
  } finally {
    client.close();
    ended = await host.program.halt();
    await rm(folder, { recursive: true, force: true });
  }
  return { client: client.notes, server, process: ended };
}
