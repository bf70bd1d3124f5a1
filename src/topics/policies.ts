/**
 * Finds the policy of a topic: the most specific pattern wins, segment by segment, fixed text before a parameter before '*'.
 * Role: asked for each subscription and publish, so what was found is remembered. Up: whatever acts on policies. Down: config/pattern.ts.
 */
import type { RouteParams } from '../api/websocket.ts';
import { PatternTable } from '../config/pattern.ts';
import { topicGrammar } from '../config/topic-pattern.ts';
import type { TopicPolicySettings } from '../config/topics.ts';

/** The policy that a topic has. */
export interface FoundPolicy {
  readonly policy: TopicPolicySettings;
  /** What the `:name` segments of its pattern matched, by name; without a prototype. */
  readonly params: RouteParams;
}

/** Topics that are remembered, in each of two generations; clients choose their names, so there must be an end. */
const rememberedMax = 4096;

const noParams: RouteParams = Object.freeze(Object.create(null));

export class Policies {
  readonly #table: PatternTable<TopicPolicySettings> | undefined;
  readonly #rememberedMax: number;
  /** What was found lately; once full it becomes the older one, and what of that is asked for again moves over. */
  #recent = new Map<string, FoundPolicy | undefined>();
  #older = new Map<string, FoundPolicy | undefined>();

  /** `policies`: of a config that was resolved. */
  constructor(policies: readonly TopicPolicySettings[], remembered = rememberedMax) {
    const entries = policies.map((policy) => [policy.pattern, policy] as const);
    this.#table = entries.length === 0 ? undefined : new PatternTable(topicGrammar, entries);
    this.#rememberedMax = remembered;
  }

  /** Whether any topic can have one. */
  get any(): boolean {
    return this.#table !== undefined;
  }

  /** Topics of which it is remembered what was found. */
  get remembered(): number {
    return this.#recent.size + this.#older.size;
  }

  /** ret: undefined: the topic has none. Asked again, the answer is the same object, for as long as it is remembered */
  find(topic: string): FoundPolicy | undefined {
    if (this.#table === undefined) return undefined;
    const recent = this.#recent.get(topic);
    if (recent !== undefined || this.#recent.has(topic)) return recent;
    const isOlder = this.#older.has(topic);
    const found = isOlder ? this.#older.get(topic) : this.#match(this.#table, topic);
    if (this.#recent.size >= this.#rememberedMax) {
      this.#older = this.#recent;
      this.#recent = new Map();
    } else if (isOlder) this.#older.delete(topic);
    this.#recent.set(topic, found);
    return found;
  }

  #match(table: PatternTable<TopicPolicySettings>, topic: string): FoundPolicy | undefined {
    // Names that begin with NUL are the gateway's own, whatever '*' says.
    if (topic.startsWith('\0')) return undefined;
    const match = table.match(topic);
    return match && { policy: match.target, params: match.params === undefined ? noParams : Object.freeze(match.params) };
  }
}
