/**
 * Why something did not work with Redis, in words that say what to do, and what follows from it.
 *
 * Role: pure. Up: connection.ts and all that asks Redis. No text ever holds a password: Redis may repeat the arguments of a command, so what
 * stands behind 'with args' is cut off, and known secrets are struck out.
 */
import type { RedisSettings } from '../../config/redis.ts';

/**
 * gone: the connection is lost, or the server does not answer; try again soon.
 * later: the server is there and cannot now; connect again.
 * moved: another server of the Cluster has the slot.
 * rejected: this one command will never do.
 * refused: somebody has to change a setting first; try again seldom.
 */
export interface Failure {
  readonly kind: 'gone' | 'later' | 'moved' | 'rejected' | 'refused';
  readonly text: string;
  /** An error answer of Redis. */
  readonly isAnswer?: boolean;
}

/** What is thrown where a failure is already known. */
export class LinkError extends Error {
  readonly failure: Failure;

  constructor(failure: Failure) {
    super(failure.text);
    this.name = 'LinkError';
    this.failure = failure;
  }
}

const movedCodes = new Set(['MOVED', 'ASK', 'TRYAGAIN', 'CROSSSLOT']);
const laterCodes = new Set(['CLUSTERDOWN', 'LOADING', 'BUSY', 'MASTERDOWN', 'NOREPLICAS', 'UNKILLABLE', 'IDONTKNOW', 'READONLY']);
/** Redis before 7 puts words of its own before the error of a command in a script. */
const inScript = /^ERR Error running script .*?: @user_script:\s*\d+: (?=[A-Z]+ )/;

/** Of Redis, and of services and proxies that speak its protocol. */
const noCommand =
  /unknown command .?s?(?:publish|(?:un)?subscribe|cluster)\b|(?:unsupported|disabled|not allowed|not supported)\b.*command|command\b.*(?:unsupported|disabled|not allowed|not supported)/i;

export class Failures {
  readonly #settings: RedisSettings;
  readonly #secrets: readonly string[];

  constructor(settings: RedisSettings) {
    this.#settings = settings;
    const { servers, login } = settings;
    const passwords = [login.password, servers.kind === 'sentinel' ? servers.login.password : undefined];
    this.#secrets = passwords.filter((password) => password !== undefined && password !== '') as string[];
  }

  of(error: unknown): Failure {
    if (error instanceof LinkError) return error.failure;
    if (!(error instanceof Error)) return { kind: 'gone', text: typeof error === 'string' ? this.#clean(error) : 'the connection broke' };
    const said = this.#clean(error.message.replace(inScript, ''));
    if (error.name === 'ReplyError') return { ...this.#ofReply(said), isAnswer: true };
    const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
    return { kind: 'gone', text: said || code || 'the connection broke', ...ofTls(code, said) };
  }

  #clean(message: string): string {
    let text = message.replace(/,? with args beginning with.*$/s, '');
    for (const secret of this.#secrets) text = text.replaceAll(secret, '***');
    return text.slice(0, 300).trim();
  }

  #ofReply(said: string): Failure {
    const code = said.split(' ', 1)[0] ?? '';
    if (movedCodes.has(code)) {
      if (this.#settings.servers.kind === 'cluster') return { kind: 'moved', text: said };
      return { kind: 'refused', text: `it belongs to a Redis Cluster; write redis.cluster instead of redis.url (${said})` };
    }
    if (laterCodes.has(code) || /max number of clients/i.test(said)) return { kind: 'later', text: said };
    const advice = this.#adviceFor(code, said);
    return advice === undefined ? { kind: 'rejected', text: said } : { kind: 'refused', text: `${advice} (${said})` };
  }

  #adviceForRights(): string {
    const { servers, prefix } = this.#settings;
    const rights = servers.kind === 'cluster' ? '+spublish +ssubscribe +sunsubscribe +cluster|slots' : '+publish +subscribe +unsubscribe';
    return `its user may not do this; give it the rights ${rights} &${prefix}:*, and for topics that remember those in docs/nodes.md`;
  }

  #adviceFor(code: string, said: string): string | undefined {
    const { servers } = this.#settings;
    const isCluster = servers.kind === 'cluster';
    switch (code) {
      case 'NOAUTH':
        return 'it asks for a password; set redis.password, or write it into the URL';
      case 'WRONGPASS':
        return 'it does not take this user and password; correct redis.username and redis.password, or those in the URL';
      case 'NOPERM':
        return this.#adviceForRights();
      case 'DENIED':
        return 'it answers only its own machine (protected mode); give it a password and set that as redis.password';
    }
    if (/user executing the script can't/i.test(said)) return this.#adviceForRights();
    if (/invalid password|no password is set|invalid username-password/i.test(said)) {
      return 'it does not take this password; correct redis.password, or the one in the URL';
    }
    if (/unknown command .?s(publish|subscribe)/i.test(said)) {
      return 'it is too old for a Cluster with sharded pub/sub, or its SPUBLISH or SSUBSCRIBE is renamed; update it to Redis 7 or later, or give the command back';
    }
    if (noCommand.test(said)) {
      const commands = isCluster ? 'SPUBLISH, SSUBSCRIBE, SUNSUBSCRIBE and CLUSTER' : 'PUBLISH, SUBSCRIBE and UNSUBSCRIBE';
      return `a command is renamed or taken away there (rename-command); Ringway needs ${commands} by these names, which no proxy in between may leave out: give it back, or use another Redis`;
    }
    if (/cluster support disabled/i.test(said)) return 'it is not a Cluster; write redis.url instead of redis.cluster';
    return undefined;
  }
}

/** TLS mistakes last until somebody corrects them. ret: nothing, when it is not about TLS */
function ofTls(code: string, said: string): Partial<Failure> {
  const refuse = (advice: string): Failure => ({ kind: 'refused', text: `${advice} (${said || code})` });
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return refuse('its certificate is for another name; connect by that name, or set redis.tls.serverName');
  }
  if (/^(UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|CERT_|INVALID_CA|ERR_TLS_)/.test(code) || /certificate/i.test(said)) {
    return refuse('TLS does not come about for its certificate; set redis.tls.ca to the authority that signed it, and look at its dates');
  }
  if (/wrong version number|WRONG_VERSION/i.test(`${code} ${said}`)) {
    return refuse('it does not speak TLS on this port; write redis:// instead of rediss://, or its TLS port');
  }
  return {};
}
