/**
 * A model check of the lock-free core: several publishers and subscribers of one channel, interleaved access by access
 * from a seed, with one of them killed at any step, and what must hold whatever happens.
 *
 * The code under test is the core's own (see `traced_core.ts`). Around it the actors do what `PublishingEnd` and
 * `ReadingEnd` do. Whoever waits sleeps until somebody writes its eventfd, so a wake-up that is lost ends in a deadlock.
 */

import assert from "node:assert/strict";
import { Scb } from "../../shm/layout.ts";
import { Outcome, PublisherStruct, Release, SubscriberStruct } from "../../shm/structs.ts";
import { Random } from "../chaos/random.ts";
import { Machine } from "./machine.ts";
import { type ModelChannel, PUBLISHER_BELL, SUBSCRIBER_BELL } from "./model_channel.ts";
import { Actor, interleave } from "./scheduler.ts";
import type { TracedCore } from "./traced_core.ts";

/** What the actors do wrong, to see whether the fault is found. */
export interface Habits {
  /** Sleepers look for the last time, and then say that they sleep. */
  readonly looksFirst?: boolean;
  /** The eventfds of those who sleep are written after all flags were taken down. */
  readonly writesLast?: boolean;
}

interface Traits {
  readonly reliable: boolean;
  /** Whether it sleeps by means of its own: its eventfd is always written. */
  readonly polls: boolean;
  /** Sleeps that end without anybody having written the eventfd. */
  readonly impatience: number;
  /** Whether it is a subscriber that clears its bits before its first message, as the reference's do. */
  readonly clears: boolean;
}

/** What is drawn from a seed. */
interface Scenario {
  readonly numSlots: number;
  readonly publishers: readonly Traits[];
  readonly subscribers: readonly Traits[];
  readonly messages: number;
  /** Messages that are published before the subscribers are woken. */
  readonly batch: number;
  /**
   * Whether the server is away: it wakes nobody when publishers leave, and does not clean up behind a victim, which dies
   * while it wakes others.
   */
  readonly away: boolean;
  /** Index over publishers, then subscribers; -1: nobody dies. */
  readonly victim: number;
  readonly victimSteps: number;
}

function draw(random: Random): Scenario {
  const reliable = random.below(4) > 0;
  const traits = (reliable: boolean): Traits => ({
    reliable,
    polls: random.below(8) === 0,
    impatience: random.pick([0, 0, 1, 3, 100]),
    clears: false,
  });
  const publishers = Array.from({ length: 1 + random.below(2) }, () => traits(reliable));
  const subscribers = Array.from({ length: 1 + random.below(3) }, () => ({
    ...traits(random.below(3) > 0),
    clears: random.below(4) === 0,
  }));
  const users = publishers.length + subscribers.length, away = random.below(4) === 0;
  return {
    // One slot for each user and one to go on with, or a few more.
    numSlots: users + 1 + random.below(3),
    publishers,
    subscribers,
    messages: 2 + random.below(6),
    batch: random.below(4) > 0 ? 1 : 3,
    away,
    victim: random.below(3) === 0 ? random.below(away ? publishers.length : users) : -1,
    victimSteps: 1 + random.below(250),
  };
}

const PAYLOAD_WORDS = 3;
const STEPS_MAX = 200_000;

/** Runs the scenarios of seeds. */
export class CoreModel {
  steps = 0;
  kills = 0;

  private constructor(private readonly machine: Machine, private readonly habits: Habits) {}

  /** @param spoil Changes a source of the core, to see whether the fault is found. */
  static async create(
    spoil?: (name: string, source: string) => string,
    habits: Habits = {},
  ): Promise<CoreModel> {
    return new CoreModel(await Machine.create(spoil), habits);
  }

  /** @throws {Error} If something does not hold; the seed replays it. */
  async run(seed: number): Promise<void> {
    const random = new Random(seed), scenario = draw(random);
    const { numSlots, publishers, subscribers } = scenario;
    try {
      const channel = this.machine.begin(numSlots, publishers.length + subscribers.length);
      const world = new World(channel, scenario, this.habits);
      this.steps += await world.run(random, (step) => this.machine.start(step));
      if (world.killed) this.kills++;
    } catch (error) {
      throw new Error(`seed ${seed}, ${JSON.stringify(scenario)}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

interface User {
  readonly actor: Actor;
  readonly id: number;
  readonly reliable: boolean;
  readonly struct: number;
  /** Wakes the other side. */
  readonly ringer: number;
  /** Its eventfd's counter. */
  signals: number;
  readonly polls: boolean;
  impatience: number;
  readonly clears: boolean;
  /** Whether it is waking others. */
  ringing: boolean;
}

interface PublisherState extends User {
  /** Messages whose publication has come to its end, and those that it has begun. */
  published: number;
  begun: number;
}

interface SubscriberState extends User {
  /** Per publisher, the numbers of the messages received. */
  readonly received: number[][];
}

class World {
  readonly #payload: Uint32Array;
  readonly #publishers: PublisherState[];
  readonly #subscribers: SubscriberState[];
  /** Publishers that the server has removed. */
  #removed = 0;
  killed = false;

  constructor(
    private readonly channel: ModelChannel,
    private readonly scenario: Scenario,
    private readonly habits: Habits,
  ) {
    const { publishers, subscribers, numSlots } = scenario;
    this.#payload = new Uint32Array(numSlots * PAYLOAD_WORDS);
    this.#subscribers = subscribers.map((traits, i) => this.#subscriber(publishers.length + i, traits));
    this.#publishers = publishers.map((traits, id) => this.#publisher(id, traits));
    this.#tellKinds();
  }

  #publisher(id: number, traits: Traits): PublisherState {
    const { channel } = this, struct = channel.addPublisher(id, traits.reliable);
    const ringer = channel.addRinger(SUBSCRIBER_BELL), actor = new Actor(`publisher ${id}`);
    if (!traits.reliable) channel.plain.claimUnreliable(struct);
    return { ...traits, actor, id, struct, ringer, signals: 0, ringing: false, published: 0, begun: 0 };
  }

  #subscriber(id: number, traits: Traits): SubscriberState {
    const { channel } = this, struct = channel.addSubscriber(id, traits.reliable, 1);
    const ringer = channel.addRinger(PUBLISHER_BELL), actor = new Actor(`subscriber ${id}`);
    const received = this.scenario.publishers.map(() => []);
    return { ...traits, actor, id, struct, ringer, signals: 0, ringing: false, received };
  }

  #tellKinds(): void {
    const ids = (those: SubscriberState[]) => those.map(({ id }) => id);
    const unreliable = ids(this.#subscribers.filter(({ reliable }) => !reliable));
    const ours = ids(this.#subscribers.filter(({ clears }) => !clears));
    for (const { struct, reliable } of this.#publishers) {
      if (reliable) this.channel.tellKinds(struct, { unreliable, ours });
    }
  }

  #word(struct: number, field: number): number {
    return this.channel.view.getUint32(struct + field, true);
  }

  /** Runs to the end and checks. Returns the number of steps. */
  async run(random: Random, coreOf: (step: () => Promise<void>) => TracedCore): Promise<number> {
    const users = [...this.#publishers, ...this.#subscribers];
    for (const state of this.#publishers) {
      const core = coreOf(state.actor.step);
      state.actor.start(() => this.#publish(state, core));
    }
    for (const state of this.#subscribers) {
      const core = coreOf(state.actor.step);
      state.actor.start(() => this.#read(state, core));
    }
    const victim = users[this.scenario.victim];
    const { victimSteps, away } = this.scenario;
    const kill = victim === undefined ? null : {
      actor: victim.actor,
      due: () => victim.actor.steps >= victimSteps && (victim.ringing || !away),
      cleanUp: () => {
        this.killed = true;
        if (away) return null;
        const server = new Actor("server");
        const core = coreOf(server.step);
        server.start(() => this.#cleanUp(victim, core));
        return server;
      },
    };
    const maySleep = (actor: Actor) => away && this.#subscribers.some((user) => user.actor === actor);
    const plan = { random, stepsMax: STEPS_MAX, kill, maySleep };
    const steps = await interleave(users.map(({ actor }) => actor), plan);
    for (const { actor } of users) if (!actor.done) await actor.bury();
    const reliable = this.#subscribers.filter(({ reliable, actor }) => reliable && !actor.killed);
    this.channel.freeReferences(reliable.map(({ id }) => id));
    this.#check();
    return steps;
  }

  get #publishersDone(): boolean {
    return this.#removed === this.#publishers.length;
  }

  async #publish(state: PublisherState, core: TracedCore): Promise<void> {
    const { struct, actor } = state, { messages, batch } = this.scenario;
    if (state.polls) await this.#sleepByOwnMeans(state, PUBLISHER_BELL, core);
    for (let number = 0; number < messages; number++) {
      if (!await this.#claim(state, core)) break;
      const slotId = this.#word(struct, PublisherStruct.slotId);
      for (let i = 0; i < PAYLOAD_WORDS; i++) {
        await actor.step();
        this.#payload[slotId * PAYLOAD_WORDS + i] = (state.id << 16) | number;
      }
      state.begun = number + 1;
      await core.beginPublish(struct, PAYLOAD_WORDS * 4, 0);
      await core.endPublish(struct, PAYLOAD_WORDS * 4, 0);
      if ((number + 1) % batch === 0) await this.#ring(state, this.#subscribers, core);
      state.published = number + 1;
    }
    await this.#ring(state, this.#subscribers, core);
    this.#publisherRemoved();
  }

  /** Gets a slot. Returns false where nobody is there to read. */
  async #claim(state: PublisherState, core: TracedCore): Promise<boolean> {
    const { struct, actor } = state;
    const outcomeOf = () => state.reliable ? core.claimReliable(struct, 0) : core.claimUnreliable(struct);
    while (this.#word(struct, PublisherStruct.slot) === 0) {
      const outcome = await outcomeOf();
      if (outcome >= 0) break;
      if (outcome === Outcome.noSubscribers) return false;
      await this.#ring(state, this.#subscribers, core);
      if (state.reliable) {
        await this.#await(state, PUBLISHER_BELL, async () => await outcomeOf() !== Outcome.none, core);
        // The time of a doubt is over when nobody else can do anything.
        if (actor.wokenByTime) await core.endDoubts(struct);
      } else await actor.step();
    }
    return true;
  }

  async #read(state: SubscriberState, core: TracedCore): Promise<void> {
    const { struct, actor } = state;
    if (state.polls) await this.#sleepByOwnMeans(state, SUBSCRIBER_BELL, core);
    if (state.clears) await this.channel.populateAsTheReference(struct, state.id, actor.step);
    while (true) {
      const over = this.#publishersDone;
      const slotId = await core.readNext(struct);
      await this.#tellOfRoom(state, core);
      if (slotId === Outcome.none) {
        const unread = await this.#mayHaveUnread(state, core);
        if (over && !unread) return;
        if (!unread) await this.#await(state, SUBSCRIBER_BELL, () => this.#mayHaveUnread(state, core), core);
        continue;
      }
      assert(slotId >= 0, `${actor.name}: outcome ${slotId}`);
      const words: number[] = [];
      for (let i = 0; i < PAYLOAD_WORDS; i++) {
        await actor.step();
        words.push(this.#payload[slotId * PAYLOAD_WORDS + i]);
      }
      assert(words.every((word) => word === words[0]), `${actor.name}: a message is torn: ${words}`);
      const publisher = words[0] >>> 16, number = words[0] & 0xffff;
      const received = state.received[publisher];
      assert(
        number > (received.at(-1) ?? -1),
        `${actor.name}: ${number} of ${publisher} after ${received.at(-1)}`,
      );
      received.push(number);
      const released = await core.release(struct, slotId);
      if (released & Release.unblocks) await this.#ring(state, this.#publishers, core);
    }
  }

  async #sleepByOwnMeans(state: User, bell: number, core: TracedCore): Promise<void> {
    await core.staySignalled(bell, state.id);
    state.signals++;
  }

  /** Waits until somebody has written its eventfd, or it is ready to go on. */
  async #await(state: User, bell: number, ready: () => Promise<boolean>, core: TracedCore): Promise<void> {
    if (state.polls) {
      const pulled = state.signals > 0;
      state.signals = 0;
      if (!pulled) await this.#sleep(state);
      return;
    }
    if (!this.habits.looksFirst) await core.fallAsleep(bell, state.id);
    const isReady = await ready();
    if (this.habits.looksFirst) await core.fallAsleep(bell, state.id);
    if (isReady || state.impatience-- > 0) await core.wakeUp(bell, state.id);
    else await this.#sleep(state);
  }

  async #mayHaveUnread(state: SubscriberState, core: TracedCore): Promise<boolean> {
    const unread = await core.mayHaveUnread(state.struct) !== 0;
    await this.#tellOfRoom(state, core);
    return unread;
  }

  async #tellOfRoom(state: SubscriberState, core: TracedCore): Promise<void> {
    if (this.#word(state.struct, SubscriberStruct.madeRoom) === 0) return;
    await this.#ring(state, this.#publishers, core);
  }

  async #sleep(state: User): Promise<void> {
    const doubts = !("received" in state) && this.#word(state.struct, PublisherStruct.doubts) !== 0;
    await state.actor.sleep(() => state.signals > 0, doubts);
    state.signals = 0;
  }

  /** Wakes those of the other side that sleep. */
  async #ring(user: User, others: readonly User[], core: TracedCore): Promise<void> {
    const { ringer, actor } = user, late: number[] = [];
    const write = async (id: number) => {
      await actor.step();
      others.find((other) => other.id === id)!.signals++;
    };
    user.ringing = true;
    for (let id = await core.beginRinging(ringer); id >= 0; id = await core.goOnRinging(ringer)) {
      if (this.habits.writesLast) late.push(id);
      else await write(id);
    }
    for (const id of late) await write(id);
    user.ringing = false;
  }

  /** The server wakes those whom it concerns that a user is gone. */
  #publisherRemoved(): void {
    this.#removed++;
    if (this.scenario.away) return;
    for (const user of this.#subscribers) user.signals++;
    this.#wakeReliablePublishers();
  }

  #wakeReliablePublishers(): void {
    for (const user of this.#publishers) if (user.reliable) user.signals++;
  }

  /** What the server does when a client's connection ends. */
  async #cleanUp(victim: PublisherState | SubscriberState, core: TracedCore): Promise<void> {
    const { channel } = this, { id, reliable } = victim;
    if ("received" in victim) {
      await core.removeSubscriber(channel.address, id, reliable ? 1 : 0, channel.scratch);
      channel.count(Scb.numSubs, -1);
      if (reliable) channel.count(Scb.numReliableSubs, -1);
      channel.count(Scb.numSubUpdates, 1);
      this.#tellKinds();
      await core.forgetSleeper(SUBSCRIBER_BELL, id);
      this.#wakeReliablePublishers();
    } else {
      await core.removePublisher(channel.address, id);
      await core.clearHazard(channel.address, id);
      channel.count(Scb.numPubs, -1);
      await core.forgetSleeper(PUBLISHER_BELL, id);
      this.#publisherRemoved();
    }
  }

  #check(): void {
    for (const subscriber of this.#subscribers) {
      if (!subscriber.actor.killed && subscriber.reliable) this.#checkNothingLost(subscriber);
    }
    if (!this.scenario.away) this.#checkNothingLeaked();
  }

  #checkNothingLost({ actor, received }: SubscriberState): void {
    for (const { id, reliable, published, begun, actor: publisher } of this.#publishers) {
      // Of one that died before it woke anybody, the last message may wait until somebody does.
      if (!reliable || (publisher.killed && this.scenario.away)) continue;
      const numbers = received[id];
      const expected = Array.from({ length: numbers.length }, (_, i) => i);
      assert.deepEqual(numbers, expected, `${actor.name}: messages of publisher ${id} are missing`);
      assert(
        numbers.length === published || numbers.length === begun,
        `${actor.name}: ${numbers.length} messages of publisher ${id}, which published ${published}`,
      );
    }
  }

  /** Nobody holds anything any more, except that unreliable publishers have a slot in advance. */
  #checkNothingLeaked(): void {
    for (let slotId = 0; slotId < this.scenario.numSlots; slotId++) {
      const { owner, refs, reliableRefs } = this.channel.refs(slotId);
      if (owner === null) {
        assert.deepEqual([refs, reliableRefs], [0, 0], `slot ${slotId} is held by nobody alive`);
        continue;
      }
      const { actor, struct } = this.#publishers[owner];
      assert(!actor.killed, `slot ${slotId} belongs to ${actor.name}, which is dead`);
      assert.equal(this.#word(struct, PublisherStruct.slotId), slotId, "a slot is lost");
    }
  }
}
