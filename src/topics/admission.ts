/**
 * Whether a client may do something with a topic: its policy is asked, and its token for the topic looked at.
 * Role: up: subscriptions.ts, and protocols by Topics.authorize. Down: the config's functions, and what verifies tokens.
 */
import type { TopicAction, TopicConnection } from '../api/topics.ts';
import type { User } from '../api/user.ts';
import type { FoundPolicy } from './policies.ts';
import { PolicyClient } from './topic-client.ts';

/** What verifies topic tokens, where the config has `auth`. Never rejects. */
export type VerifyTopicToken = (
  token: string | undefined,
  topic: string,
  client: { readonly user: User | undefined },
) => Promise<{ readonly ok: true; readonly expiresAt: number | undefined } | { readonly ok: false }>;

/** `expiresAt`: of the token, in milliseconds as of Date.now(); undefined: for good. */
export type Verdict = { readonly expiresAt?: number | undefined } | 'forbidden' | 'token';

const granted: Verdict = Object.freeze({});

export interface AdmissionPorts {
  readonly verifyTopicToken: VerifyTopicToken | undefined;
  /** A function of the config has failed. Counted, and said. */
  failed(context: object, sentence: string): void;
}

export class Admission {
  readonly #ports: AdmissionPorts;

  constructor(ports: AdmissionPorts) {
    this.#ports = ports;
  }

  /** At once where it can be. Never rejects. */
  authorize(connection: TopicConnection, topic: string, action: TopicAction, found: FoundPolicy): boolean | Promise<boolean> {
    const { authorize } = found.policy;
    if (authorize === undefined) return true;
    try {
      const answer = authorize(new PolicyClient(connection, found.params), topic, action);
      if (typeof answer === 'boolean') return answer;
      return Promise.resolve(answer).then(
        (value) => this.#decided(value, topic, action, found),
        (error: unknown) => this.#failed(error, topic, action, found),
      );
    } catch (error) {
      return this.#failed(error, topic, action, found);
    }
  }

  /** To subscribe: the token first, which costs no code of others. At once where it can be. Never rejects. */
  admit(connection: TopicConnection, topic: string, found: FoundPolicy, token: string | undefined): Verdict | Promise<Verdict> {
    if (found.policy.token) return this.#admitByToken(connection, topic, found, token);
    const answer = this.authorize(connection, topic, 'subscribe', found);
    if (typeof answer === 'boolean') return answer ? granted : 'forbidden';
    return answer.then((may) => (may ? granted : 'forbidden'));
  }

  async #admitByToken(connection: TopicConnection, topic: string, found: FoundPolicy, token: string | undefined): Promise<Verdict> {
    const verified = await this.#ports.verifyTopicToken?.(token, topic, connection);
    if (verified?.ok !== true) return 'token';
    return (await this.authorize(connection, topic, 'subscribe', found)) ? { expiresAt: verified.expiresAt } : 'forbidden';
  }

  #decided(value: unknown, topic: string, action: TopicAction, found: FoundPolicy): boolean {
    return typeof value === 'boolean'
      ? value
      : this.#failed(new TypeError(`it gave ${typeof value}, not true or false`), topic, action, found);
  }

  #failed(err: unknown, topic: string, action: TopicAction, { policy }: FoundPolicy): false {
    this.#ports.failed({ err, topic, action, policy: policy.pattern }, `authorize of the topics ${policy.pattern} failed`);
    return false;
  }
}
