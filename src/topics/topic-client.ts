/**
 * A connection as the functions of a policy see it, with what their pattern has matched.
 * Role: made for each question, asks the connection only for what is asked of it. Nothing that prints it reaches the core.
 */
import type { TopicClient } from '../api/topic-policy.ts';
import type { TopicConnection } from '../api/topics.ts';
import type { User } from '../api/user.ts';
import type { RouteParams } from '../api/websocket.ts';
import { inspection, shown } from '../core/inspection.ts';

const View = class TopicClient {};

export class PolicyClient implements TopicClient {
  readonly #connection: TopicConnection;
  readonly params: RouteParams;

  constructor(connection: TopicConnection, params: RouteParams) {
    this.#connection = connection;
    this.params = params;
  }

  get id(): string {
    return this.#connection.id;
  }

  get user(): User | undefined {
    return this.#connection.user;
  }

  get data(): unknown {
    return this.#connection.data;
  }

  get remoteAddress(): string {
    return this.#connection.remoteAddress;
  }

  get kind(): TopicClient['kind'] {
    return this.#connection.kind;
  }

  [inspection](): object {
    const { params, user, data, remoteAddress, kind } = this;
    return shown(this, View, { params, user, data, remoteAddress, kind });
  }
}
