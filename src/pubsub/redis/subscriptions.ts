/**
 * Which topics are wanted, and which of them stand in Redis; what to ask of Redis next.
 *
 * Role: pure. Up: redis-link.ts wants topics, shard.ts holds partitions and asks. Down: nothing.
 *
 *   Subscriptions    a Partition for each partition; topics by key
 *   Holder           one subscribing connection: the partitions that it holds, and how many topics stand in it
 *   tenure           counts the times that partitions were given to holders. A topic stands when it was confirmed in its partition's present
 *                    tenure; so losing a connection with 100,000 topics costs nothing at that moment.
 *
 * What a holder asks: what has changed, then what it finds on a walk through partitions that were given to it; in rounds of bounded size.
 * A topic is asked about once at a time. Its wish may change while it is asked about: when the answer is there, what then still differs is asked again.
 */

interface Waiter {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
}

export interface Subscription {
  readonly partition: Partition;
  /** The topic, one character for each byte. */
  readonly key: string;
  wanted: boolean;
  /** The tenure in which Redis confirmed it last; 0: never, or it was taken back. */
  tenure: number;
  /** Part of the round that is under way. */
  isAsked: boolean;
  /** Listed in `changed` of its partition. */
  isChanged: boolean;
  /** Of the latest wish. */
  waiter: Waiter | undefined;
}

export class Partition {
  readonly index: number;
  readonly byKey = new Map<string, Subscription>();
  changed: Subscription[] = [];
  holder: Holder | undefined;
  tenure = 0;
  /** Topics that stand in this tenure. */
  standing = 0;

  constructor(index: number) {
    this.index = index;
  }

  isStanding(subscription: Subscription): boolean {
    return this.holder !== undefined && subscription.tenure === this.tenure;
  }
}

/** One command. */
export interface Ask {
  readonly kind: 'subscribe' | 'unsubscribe';
  readonly partition: Partition;
  readonly tenure: number;
  readonly subscriptions: Subscription[];
}

export class Subscriptions {
  readonly partitions: readonly Partition[];
  #tenures = 0;
  /** Wanted topics. */
  count = 0;

  constructor(partitions: number) {
    this.partitions = Array.from({ length: partitions }, (_, index) => new Partition(index));
  }

  /** What comes for it is handed on: it is wanted, or was until Redis confirms that it is gone. */
  isHeard(partition: number, key: string): boolean {
    return this.partitions[partition]?.byKey.has(key) === true;
  }

  /** Resolves when it stands, or is not wanted any more. */
  want(index: number, key: string): Promise<void> {
    const partition = this.partitions[index] as Partition;
    let subscription = partition.byKey.get(key);
    if (subscription === undefined) {
      subscription = { partition, key, wanted: false, tenure: 0, isAsked: false, isChanged: false, waiter: undefined };
      partition.byKey.set(key, subscription);
    }
    if (!subscription.wanted) {
      subscription.wanted = true;
      this.count += 1;
      release(subscription);
    }
    if (partition.isStanding(subscription) && !subscription.isAsked) return Promise.resolve();
    change(subscription);
    return awaited(subscription);
  }

  /** Resolves when it does not stand any more, or is wanted again. */
  unwant(index: number, key: string): Promise<void> {
    const subscription = this.partitions[index]?.byKey.get(key);
    if (subscription === undefined) return Promise.resolve();
    if (subscription.wanted) {
      subscription.wanted = false;
      this.count -= 1;
      release(subscription);
    }
    if (subscription.isAsked || subscription.partition.isStanding(subscription)) {
      change(subscription);
      return awaited(subscription);
    }
    if (!subscription.isChanged) subscription.partition.byKey.delete(key);
    return Promise.resolve();
  }

  /** Nothing is waited for any more. */
  releaseAll(): void {
    for (const { byKey } of this.partitions) for (const subscription of byKey.values()) release(subscription);
  }

  /** From now on `holder` holds the partition, and nothing stands in it. undefined: nobody does. */
  give(partition: Partition, holder: Holder | undefined): void {
    partition.holder?.letGo(partition);
    partition.tenure = ++this.#tenures;
    partition.standing = 0;
    partition.holder = holder;
    // Whoever holds it next walks through all of it; what was to be ended is.
    for (const subscription of partition.changed) {
      subscription.isChanged = false;
      if (!subscription.wanted) forget(subscription);
    }
    partition.changed = [];
    holder?.takeOver(partition);
  }
}

export class Holder {
  readonly #partitions = new Set<Partition>();
  /** Those with changes. */
  readonly #changed = new Set<Partition>();
  readonly #walks = new Map<Partition, Iterator<Subscription>>();
  readonly #onChange: () => void;
  readonly #onRestored: (key: string) => void;
  /** Commands under way. */
  #asked = 0;
  /** Topics that Redis has confirmed for this connection. */
  standing = 0;
  /** Topics that stood before, were interrupted, and stand again; to be told and set to 0. */
  gaps = 0;

  /** `onChange`: there is something to ask. `onRestored`: a topic that stood before, and was interrupted, stands again. */
  constructor(onChange: () => void, onRestored: (key: string) => void = () => {}) {
    this.#onChange = onChange;
    this.#onRestored = onRestored;
  }

  get partitions(): ReadonlySet<Partition> {
    return this.#partitions;
  }

  /** Not everything that was wanted when its partition came here has been asked for and answered. */
  get isRestoring(): boolean {
    return this.#walks.size > 0 || this.#asked > 0;
  }

  /** `isParked`: partitions that do not count. */
  hasWork(isParked: (partition: Partition) => boolean): boolean {
    for (const partition of this.#walks.keys()) if (!isParked(partition)) return true;
    for (const partition of this.#changed) if (!isParked(partition)) return true;
    return false;
  }

  takeOver(partition: Partition): void {
    this.#partitions.add(partition);
    this.#walks.set(partition, partition.byKey.values());
    this.#onChange();
  }

  letGo(partition: Partition): void {
    this.#partitions.delete(partition);
    this.#changed.delete(partition);
    this.#walks.delete(partition);
    this.standing -= partition.standing;
  }

  changedIn(partition: Partition): void {
    this.#changed.add(partition);
    this.#onChange();
  }

  /**
   * The commands of the next round, of `topicsMax` topics together. Looks at a bounded number of topics: where `hasWork` is still true and
   * the round is empty, call again in another turn. `isParked`: partitions to leave for now.
   */
  next(topicsMax: number, isParked: (partition: Partition) => boolean): Ask[] {
    const asks = new Map<string, Ask>();
    let room = topicsMax;
    let looks = topicsMax * 8;
    const look = (subscription: Subscription): boolean => {
      looks -= 1;
      if (this.#ask(asks, subscription)) room -= 1;
      return room > 0 && looks > 0;
    };
    for (const partition of this.#changed) {
      if (isParked(partition)) continue;
      let used = 0;
      let goOn = true;
      for (const subscription of partition.changed) {
        if (!goOn) break;
        used += 1;
        subscription.isChanged = false;
        goOn = look(subscription);
      }
      partition.changed = partition.changed.slice(used);
      if (partition.changed.length === 0) this.#changed.delete(partition);
      if (!goOn) return this.#begin(asks);
    }
    // No topic that a walk meets is among the changed ones of its partition any more.
    for (const [partition, walk] of this.#walks) {
      if (isParked(partition)) continue;
      for (let step = walk.next(); ; step = walk.next()) {
        if (step.done === true) {
          this.#walks.delete(partition);
          break;
        }
        if (!look(step.value)) return this.#begin(asks);
      }
    }
    return this.#begin(asks);
  }

  /** Redis has answered a command of the round. `isDone`: with yes; else it is asked again. */
  settle(ask: Ask, isDone: boolean): void {
    this.#asked -= 1;
    const { partition, kind } = ask;
    const isPresent = partition.tenure === ask.tenure;
    for (const subscription of ask.subscriptions) {
      subscription.isAsked = false;
      if (isDone && isPresent) this.#answered(subscription, kind === 'subscribe');
      const stands = partition.isStanding(subscription);
      if (subscription.wanted !== stands) change(subscription);
      else if (stands) release(subscription);
      else forget(subscription);
    }
  }

  #answered(subscription: Subscription, isSubscribed: boolean): void {
    const { partition } = subscription;
    const stood = partition.isStanding(subscription);
    if (isSubscribed && !stood) {
      if (subscription.tenure !== 0) {
        this.gaps += 1;
        this.#onRestored(subscription.key);
      }
      subscription.tenure = partition.tenure;
      partition.standing += 1;
      this.standing += 1;
    } else if (!isSubscribed && stood) {
      subscription.tenure = 0;
      partition.standing -= 1;
      this.standing -= 1;
    }
  }

  /** ret: whether there is something to ask about it */
  #ask(asks: Map<string, Ask>, subscription: Subscription): boolean {
    const { partition, wanted, isAsked } = subscription;
    if (isAsked) return false;
    if (wanted === partition.isStanding(subscription)) {
      if (wanted) release(subscription);
      else forget(subscription);
      return false;
    }
    const kind = wanted ? 'subscribe' : 'unsubscribe';
    const name = `${kind} ${partition.index}`;
    let ask = asks.get(name);
    if (ask === undefined) {
      ask = { kind, partition, tenure: partition.tenure, subscriptions: [] };
      asks.set(name, ask);
    }
    ask.subscriptions.push(subscription);
    subscription.isAsked = true;
    return true;
  }

  #begin(asks: Map<string, Ask>): Ask[] {
    this.#asked += asks.size;
    return [...asks.values()];
  }
}

function change(subscription: Subscription): void {
  const { partition } = subscription;
  // A round under way is looked at when its answer is there; what nobody holds is walked through when somebody does.
  if (subscription.isChanged || subscription.isAsked || partition.holder === undefined) return;
  subscription.isChanged = true;
  partition.changed.push(subscription);
  partition.holder.changedIn(partition);
}

function awaited(subscription: Subscription): Promise<void> {
  subscription.waiter ??= Promise.withResolvers<void>();
  return subscription.waiter.promise;
}

/** Neither wanted nor standing. */
function forget(subscription: Subscription): void {
  release(subscription);
  subscription.partition.byKey.delete(subscription.key);
}

function release(subscription: Subscription): void {
  subscription.waiter?.resolve();
  subscription.waiter = undefined;
}
