/**
 * The topics of a worker, put together by what its config says of them.
 * Role: composition. Up: worker/main.ts. Without policies sockets and `publish` go straight to raw-topics.ts; what asks all workers is there in any case.
 */
import type { ServerTopics, Topics } from '../api/topics.ts';
import { authCloseCodes } from '../auth/authentication.ts';
import type { TopicPolicySettings } from '../config/topics.ts';
import type { Core } from '../core/core.ts';
import type { HostCounter } from '../core/host-counters.ts';
import { statIndex } from '../core/stat-index.ts';
import type { Log } from '../log.ts';
import { Admission, type VerifyTopicToken } from './admission.ts';
import { Control } from './control.ts';
import { Listeners } from './listeners.ts';
import { Members } from './members.ts';
import { MemoryStore } from './memory-store.ts';
import { Policies } from './policies.ts';
import { publishDirect, RawTopics } from './raw-topics.ts';
import type { TopicStore } from './store.ts';
import { Subscriptions } from './subscriptions.ts';
import { TokenEnds } from './token-ends.ts';
import { TopicServer, type TopicStreams } from './topic-server.ts';
import { PolicyTopics } from './topics.ts';

export interface TopicsSetup {
  readonly core: Core;
  readonly policies: readonly TopicPolicySettings[];
  /** Where logs and members lie; undefined: in the memory of this node. */
  readonly store: TopicStore | undefined;
  /** This worker's place, and the node's name. */
  readonly place: { readonly nodeId: string; readonly index: number };
  /** Whether the node is joined to others. */
  readonly hasNodes: boolean;
  readonly verifyTopicToken: VerifyTopicToken | undefined;
  readonly log: Pick<Log, 'error' | 'warn'>;
}

export interface WorkerTopics {
  readonly topics: Topics;
  readonly server: ServerTopics;
  /** Set once there is somebody who has them. */
  streams: TopicStreams | undefined;
  /** The process at this place of the node has ended. */
  workerGone(worker: number, epoch: number): void;
  close(): Promise<void>;
}

export function createTopics(setup: TopicsSetup): WorkerTopics {
  const { core, place, log } = setup;
  const count = (counter: HostCounter) => core.addStat(statIndex(counter), 1);
  const failed = (context: object, sentence: string) => {
    count('handler_errors');
    log.error(context, sentence);
  };
  const say = once((sentence: string) => log.warn(sentence));
  const policies = new Policies(setup.policies);
  const raw = new RawTopics(core);
  const listeners = new Listeners(core);
  const store =
    setup.store ??
    new MemoryStore(core, () => {
      say(
        'the memory for what topics remember is full (limits.maxTopicMemoryBytes): messages are dropped, and ringway_topic_publishes_failed_total counts them',
      );
    });
  const admission = new Admission({ verifyTopicToken: setup.verifyTopicToken, failed });
  const tokenEnds = new TokenEnds({
    now: () => Date.now(),
    isSubscribed: ({ slot, generation }, topic) => core.isSubscribed(slot, generation, topic),
    onEnd(connection, topic) {
      count('topic_tokens_ended');
      topics.unsubscribe(connection, topic);
      const reason = 'the token of a topic has ended';
      if (made.streams?.end(connection, authCloseCodes.ended, reason) !== true)
        core.close(connection.slot, connection.generation, authCloseCodes.ended, reason);
    },
  });
  const members = new Members({ core, failed, count: (refusal) => count(`topic_${refusal}`) });
  const subscriptions = new Subscriptions({
    core,
    store,
    admission,
    members,
    endsAt: (connection, topic, expiresAt) => tokenEnds.note(connection, topic, expiresAt),
    count: (counter) => count(`topic_${counter}`),
  });
  const topics: Topics = policies.any
    ? new PolicyTopics({
        ...{ core, raw, policies, store, admission, subscriptions },
        onDropped: () => count(setup.store === undefined ? 'topic_publishes_full' : 'topic_publishes_unavailable'),
      })
    : raw;
  const nameOf = (worker: number, epoch: number) => `${place.nodeId}-${worker}-${epoch}`;
  const control = new Control({
    name: nameOf(place.index, core.epoch),
    hasNodes: setup.hasNodes,
    listen: (topic, onText) =>
      listeners.listen(topic, { onMessage: ({ payload }) => onText(Buffer.from(payload).toString()), onLost() {} }),
    publish: (topic, text) => void publishDirect(core, topic, text),
    get answers() {
      return server.answers;
    },
    count: (counter) => count(`topic_${counter}`),
    every(ms, call) {
      const timer = setInterval(call, ms);
      return () => clearInterval(timer);
    },
    now: () => performance.now(),
  });
  const server = new TopicServer({
    core,
    topics,
    policies,
    store,
    listeners,
    control,
    streams: () => made.streams,
    failed,
  });
  control.begin();
  const made: WorkerTopics = {
    topics,
    server,
    streams: undefined,
    workerGone(worker, epoch) {
      control.gone(nameOf(worker, epoch));
    },
    async close() {
      tokenEnds.close();
      control.close();
      listeners.close();
      await store.close();
    },
  };
  return made;
}

function once(say: (sentence: string) => void): (sentence: string) => void {
  const said = new Set<string>();
  return (sentence) => {
    if (said.has(sentence)) return;
    said.add(sentence);
    say(sentence);
  };
}
