/**
 * Requests to the admin listener of a gateway that runs.
 * Role: for commands that talk to it. Where it is: --admin, else ADMIN_HOST and ADMIN_PORT, else the default address; what it is shown:
 * --token, else ADMIN_TOKEN, else what the gateway of the same user on this machine has left in its file.
 */
import { defaults, ranges } from '../config/defaults.ts';
import { OperatingError } from '../operating-error.ts';
import { type AdminPlace, readToken } from '../supervisor/admin-token.ts';
import { UsageError } from './arguments.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** What every such command understands; for citty. */
export const adminArgs = {
  admin: {
    type: 'string',
    description: 'The admin listener: a port, a URL or the path of a socket. Default: ADMIN_HOST and ADMIN_PORT, else port 9100',
    valueHint: 'WHERE',
  },
  token: { type: 'string', description: "Its token. Default: ADMIN_TOKEN, else this user's own", valueHint: 'TOKEN' },
} as const;

interface Target {
  /** For people. */
  readonly label: string;
  /** Without a slash at its end. */
  readonly origin: string;
  readonly unix: string | undefined;
  /** As a gateway of this machine may know the same place. */
  readonly places: readonly AdminPlace[];
  /** On this machine for certain. */
  readonly isLocal: boolean;
}

/** Where a gateway of this machine may be bound for a client to reach it there, by the host of the client's URL. */
const boundFor: Readonly<Record<string, readonly string[]>> = {
  '127.0.0.1': ['127.0.0.1', 'localhost', '0.0.0.0', '::'],
  '[::1]': ['::1', 'localhost', '::'],
  localhost: ['127.0.0.1', '::1', 'localhost', '0.0.0.0', '::'],
};

function targetOf(where: string): Target {
  if (where.startsWith('/') || where.startsWith('./') || where.startsWith('unix:')) {
    const path = where.replace(/^unix:(?:\/\/)?/, '');
    return { label: `unix:${path}`, origin: 'http://localhost', unix: path, places: [{ path }], isLocal: true };
  }
  const text = /^\d+$/.test(where) ? `http://127.0.0.1:${where}` : where.includes('://') ? where : `http://${where}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const port = url?.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url?.port);
  const isHttp = url?.protocol === 'http:' || url?.protocol === 'https:';
  if (url === undefined || !isHttp || port < 1)
    throw new UsageError(`--admin is '${where}'; write a port such as 9100, a URL such as http://127.0.0.1:9100, or the path of a socket`);
  const hosts = boundFor[url.hostname];
  const places = (hosts ?? [url.hostname.replace(/^\[|\]$/g, '')]).map((host) => ({ host, port }));
  return { label: url.origin, origin: url.origin, unix: undefined, places, isLocal: hosts !== undefined };
}

/** Where the gateway listens that is started with the same environment. */
function fromEnvironment(env: Environment): string {
  const text = env.ADMIN_PORT?.trim() || String(defaults.admin.port);
  const [, most] = ranges.port;
  if (!/^\d+$/.test(text) || Number(text) < 1 || Number(text) > most)
    throw new UsageError(`env ADMIN_PORT is '${text}'; write the port of the admin listener, from 1 to ${most}, or say --admin`);
  const bound = env.ADMIN_HOST?.trim() || defaults.admin.host;
  // Those that stand for every address of the machine.
  const host = bound === '0.0.0.0' ? '127.0.0.1' : bound === '::' ? '::1' : bound;
  return `http://${host.includes(':') ? `[${host}]` : host}:${text}`;
}

export interface AdminRequest {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Uint8Array<ArrayBuffer>;
}

export class AdminClient {
  readonly #target: Target;
  readonly #token: string | undefined;

  constructor(target: Target, token: string | undefined) {
    this.#target = target;
    this.#token = token;
  }

  /** Where it is, for people. */
  get label(): string {
    return this.#target.label;
  }

  /** Whether it has a token to show. */
  get hasToken(): boolean {
    return this.#token !== undefined;
  }

  /** What JSON says that a request was served with. Throws OperatingError when nobody answers, and when it is refused: with the reason. */
  async answer<Answer extends object>(path: string, options: AdminRequest = {}): Promise<Answer> {
    const response = await this.request(path, options);
    const answer = (await response.json().catch(() => ({}))) as { readonly error?: unknown; readonly mistakes?: readonly string[] };
    if (response.ok) return answer as Answer;
    const mistakes = (Array.isArray(answer.mistakes) ? answer.mistakes : []).map((mistake) => `\n  ${mistake}`).join('');
    throw new OperatingError(
      `${this.label} refuses (${response.status}): ${reasonOf(response.status, answer.error, this.hasToken)}${mistakes}`,
    );
  }

  /** Throws OperatingError when nobody answers. A status that tells of a failure is an answer. */
  async request(path: string, options: AdminRequest = {}): Promise<Response> {
    const { origin, unix, label, isLocal } = this.#target;
    const headers = { ...options.headers, ...(this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }) };
    try {
      return await fetch(origin + path, {
        ...options,
        headers,
        signal: AbortSignal.timeout(answerMs),
        // The token is for nobody else.
        redirect: 'manual',
        // HTTP_PROXY is for the world outside.
        ...(isLocal ? { proxy: false as const } : {}),
        ...(unix === undefined ? {} : { unix }),
      });
    } catch (error) {
      const reason =
        error instanceof Error && error.name === 'TimeoutError' ? `it does not answer within ${answerMs / 1000} s` : 'is it running?';
      throw new OperatingError(
        `no gateway can be reached at ${label}: ${reason} Say with --admin, or ADMIN_PORT, where its admin listener is.`,
        {
          cause: error,
        },
      );
    }
  }
}

/** Why a request was refused, for people. */
function reasonOf(status: number, error: unknown, hasToken: boolean): string {
  if (status === 401 && !hasToken)
    return 'it wants a token, and this user has none here for it; say its admin.token with --token or ADMIN_TOKEN';
  return typeof error === 'string' ? error : 'it does not say why';
}

/** The gateway itself answers within 5 s, also that a worker has not. */
const answerMs = 10_000;

/** Throws UsageError. */
export function adminClient(
  given: { readonly admin?: string | undefined; readonly token?: string | undefined },
  env: Environment = process.env,
): AdminClient {
  const target = targetOf(given.admin ?? fromEnvironment(env));
  const shown = given.token ?? env.ADMIN_TOKEN?.trim();
  if (shown) {
    if (!/^[\x21-\x7e]+$/.test(shown))
      throw new UsageError(`${given.token === undefined ? 'env ADMIN_TOKEN' : '--token'} is no token: it has spaces, or what is not ASCII`);
    return new AdminClient(target, shown);
  }
  // Never sent to another machine: it is of one that was bound to this very address here.
  const own = readToken(target.places, env);
  return own === undefined ? new AdminClient(target, undefined) : new AdminClient(at(target, own.place), own.token);
}

/** Another user may listen at the same port of the other address that 'localhost' stands for: go where the token is from. */
function at(target: Target, place: AdminPlace): Target {
  const literal = { '127.0.0.1': '127.0.0.1', '0.0.0.0': '127.0.0.1', '::1': '[::1]' } as Readonly<Record<string, string>>;
  const host = 'host' in place ? literal[place.host] : undefined;
  return host === undefined ? target : { ...target, origin: target.origin.replace('//localhost:', `//${host}:`) };
}
