/**
 * A model check of the lock-free core: several publishers and subscribers of one channel, interleaved access by access
 * from a seed, with one of them killed at any step, and what must hold whatever happens.
 *
 * The code under test is the core's own (see `traced_core.ts`). Around it the actors do what `PublishingEnd` and
 * `ReadingEnd` do. Whoever waits sleeps until somebody writes its eventfd, so a wake-up that is lost ends in a deadlock.
 */

import assert from "node:assert/strict";
import { Mapping } from "../../ffi/mapping.ts";
import { arena } from "../../shm/arena.ts";
import { ControlBlocks } from "../../shm/control_blocks.ts";
import type { CoreExports } from "../../shm/core_exports.ts";
import { coreWasm } from "../../shm/core_wasm.ts";
import { Ccb, decodeRefs, Doorbells, Limit, Scb, Slot } from "../../shm/layout.ts";
import {
  ChannelStruct,
  Outcome,
  PublisherStruct,
  Release,
  RingerStruct,
  SnapshotEntry,
  SubscriberStruct,
} from "../../shm/structs.ts";
import { SystemControlBlock } from "../../shm/system_control_block.ts";
import { Random } from "../chaos/random.ts";
import { passOverUnwritten } from "./model_channel.ts";
import { Actor, interleave } from "./scheduler.ts";
import { compileTracedCore, instantiate, type TracedCore } from "./traced_core.ts";

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
    impatience: random.pick([0, 0, 1, 3, 1000]),
  });
  const publishers = Array.from({ length: 1 + random.below(2) }, () => traits(reliable));
  const subscribers = Array.from({ length: 1 + random.below(3) }, () => traits(random.below(3) > 0));
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

const PAGE = 64 * 1024;
/** Control blocks, where the traced core takes steps. Private structs are below, the core's own lowest. */
const SHARED = 4 * PAGE;
const COUNTERS = SHARED, BCB = SHARED + 64, CCB = BCB + Doorbells.bytes + 64;
const SUBSCRIBER_BELL = BCB + Doorbells.subscribers, PUBLISHER_BELL = BCB + Doorbells.publishers;
const PAYLOAD_WORDS = 3;
const STEPS_MAX = 200_000;

/** The channel's initial memory, as the server makes it. */
function template(numSlots: number): { ccb: Uint8Array; struct: Uint32Array } {
  using scb = SystemControlBlock.create();
  const shape = { channelName: "model", numSlots, queueArenaBytes: 0 };
  using blocks = ControlBlocks.create(shape, scb.counters(0));
  using mapping = Mapping.map(blocks.ccbFd, blocks.bytes);
  const { u32 } = arena(), word = blocks.struct >>> 2;
  const struct = u32.slice(word, word + ChannelStruct.bytes / 4);
  // Addresses in the arena become addresses in the model.
  const ccb = struct[ChannelStruct.ccb / 4];
  for (let i = 0; i < struct.length; i++) {
    if (struct[i] >= ccb && struct[i] <= ccb + blocks.bytes) struct[i] += CCB - ccb;
  }
  struct[ChannelStruct.bcb / 4] = BCB;
  struct[ChannelStruct.counters / 4] = COUNTERS;
  return { ccb: mapping.bytes.slice(), struct };
}

interface Process {
  step: () => Promise<void>;
  readonly core: TracedCore;
}

/** Runs the scenarios of seeds. Made once: the traced core takes a second to compile. */
export class CoreModel {
  readonly #memory = new WebAssembly.Memory({ initial: 8, maximum: 65536 });
  readonly #templates = new Map<number, ReturnType<typeof template>>();
  readonly #plainCore: CoreExports;
  readonly #processes: Process[] = [];
  steps = 0;
  kills = 0;

  private constructor(private readonly module: WebAssembly.Module, private readonly habits: Habits) {
    const env = { memory: this.#memory };
    const plain = new WebAssembly.Instance(new WebAssembly.Module(coreWasm), { env });
    this.#plainCore = plain.exports as unknown as CoreExports;
  }

  /** @param spoil Changes a source of the core, to see whether the fault is found. */
  static async create(
    spoil?: (name: string, source: string) => string,
    habits: Habits = {},
  ): Promise<CoreModel> {
    return new CoreModel(await compileTracedCore(SHARED, spoil), habits);
  }

  /** @throws {Error} If something does not hold; the seed replays it. */
  async run(seed: number): Promise<void> {
    const random = new Random(seed);
    const scenario = draw(random);
    try {
      const world = new World(
        this.#memory,
        this.#plainCore,
        this.#template(scenario.numSlots),
        scenario,
        this.habits,
      );
      let processes = 0;
      this.steps += await world.run(random, (step) => this.#process(processes++, step));
      if (world.killed) this.kills++;
    } catch (error) {
      throw new Error(`seed ${seed}, ${JSON.stringify(scenario)}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }

  /** The core of a process; instances are used again, as making one costs more than a run. */
  #process(index: number, step: () => Promise<void>): TracedCore {
    if (index === this.#processes.length) {
      const made: Process = { step, core: instantiate(this.module, this.#memory, () => made.step()) };
      this.#processes.push(made);
    }
    const process = this.#processes[index];
    process.step = step;
    return process.core;
  }

  #template(numSlots: number) {
    let made = this.#templates.get(numSlots);
    if (made === undefined) this.#templates.set(numSlots, made = template(numSlots));
    return made;
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
  readonly #view: DataView;
  readonly #u8: Uint8Array;
  readonly #payload: Uint32Array;
  readonly #channel = PAGE;
  #free = PAGE + ChannelStruct.bytes;
  readonly #scratch: number;
  readonly #publishers: PublisherState[];
  readonly #subscribers: SubscriberState[];
  /** Publishers that the server has removed. */
  #removed = 0;
  killed = false;

  constructor(
    memory: WebAssembly.Memory,
    private readonly plain: CoreExports,
    { ccb, struct }: ReturnType<typeof template>,
    private readonly scenario: Scenario,
    private readonly habits: Habits,
  ) {
    this.#u8 = new Uint8Array(memory.buffer);
    this.#view = new DataView(memory.buffer);
    this.#u8.fill(0, PAGE, CCB);
    this.#u8.set(ccb, CCB);
    new Uint32Array(memory.buffer, this.#channel, struct.length).set(struct);
    this.#view.setInt32(CCB + Ccb.numBuffers, 1, true);
    this.#payload = new Uint32Array(scenario.numSlots * PAYLOAD_WORDS);
    this.#scratch = this.#allocate(4 * Limit.users);
    const { publishers, subscribers } = scenario;
    passOverUnwritten(memory, CCB, scenario.numSlots, publishers.length + subscribers.length);
    this.#subscribers = subscribers.map((traits, i) => this.#subscriber(publishers.length + i, traits));
    this.#publishers = publishers.map((traits, id) => this.#publisher(id, traits));
  }

  #allocate(bytes: number): number {
    const address = this.#free;
    this.#free += Math.ceil(bytes / 64) * 64;
    assert(this.#free <= SHARED);
    return address;
  }

  #publisher(id: number, traits: Traits): PublisherState {
    const { reliable } = traits;
    const struct = this.#allocate(PublisherStruct.bytes);
    const set = (field: number, value: number) => this.#view.setInt32(struct + field, value, true);
    set(PublisherStruct.channel, this.#channel);
    set(PublisherStruct.id, id);
    set(PublisherStruct.vchan, -1);
    set(PublisherStruct.reliable, reliable ? 1 : 0);
    set(PublisherStruct.numBuffers, 1);
    if (!reliable) set(PublisherStruct.victims, this.#allocate(SnapshotEntry.bytes * this.scenario.numSlots));
    this.#count(Scb.numPubs, 1);
    const ringer = this.#ringer(SUBSCRIBER_BELL);
    const actor = new Actor(`publisher ${id}`);
    const state = {
      ...traits,
      actor,
      id,
      struct,
      ringer,
      signals: 0,
      ringing: false,
      published: 0,
      begun: 0,
    };
    if (reliable) this.#tellKinds(struct);
    else this.plain.claimUnreliable(struct);
    return state;
  }

  /** What can wake everybody on the other side. */
  #ringer(bell: number): number {
    const ringer = this.#allocate(RingerStruct.bytes);
    this.#view.setUint32(ringer + RingerStruct.bell, bell, true);
    this.#u8.fill(0xff, ringer + RingerStruct.known, ringer + RingerStruct.known + Limit.users / 8);
    return ringer;
  }

  /** What a client finds out for its reliable publisher: who is unreliable. */
  #tellKinds(struct: number): void {
    for (const { id, reliable } of this.#subscribers) {
      if (!reliable) this.#u8[struct + PublisherStruct.exempt + (id >> 3)] |= 1 << (id & 7);
    }
    const updates = this.#view.getUint16(COUNTERS + Scb.numSubUpdates, true);
    this.#view.setUint32(struct + PublisherStruct.exemptStamp, updates, true);
    this.#view.setUint32(struct + PublisherStruct.exemptKnown, 1, true);
  }

  #subscriber(id: number, traits: Traits): SubscriberState {
    const { numSlots, publishers } = this.scenario, { reliable } = traits;
    const struct = this.#allocate(SubscriberStruct.bytes), slotBytes = this.#allocate(4);
    this.#view.setUint32(slotBytes, 64, true);
    const set = (field: number, value: number) => this.#view.setInt32(struct + field, value, true);
    set(SubscriberStruct.channel, this.#channel);
    set(SubscriberStruct.id, id);
    set(SubscriberStruct.vchan, -1);
    set(SubscriberStruct.reliable, reliable ? 1 : 0);
    set(SubscriberStruct.detectDrops, 1);
    set(SubscriberStruct.maxActive, 1);
    set(SubscriberStruct.snapshot, this.#allocate(SnapshotEntry.bytes * numSlots));
    set(SubscriberStruct.delivered, this.#allocate(8 * numSlots));
    set(SubscriberStruct.lastOrdinals, this.#allocate(8));
    set(SubscriberStruct.numBuffers, 1);
    set(SubscriberStruct.slotBytes, slotBytes);
    this.plain.registerSubscriber(this.#channel, id, -1, 0, this.#scratch);
    this.#count(Scb.numSubs, 1);
    this.#count(Scb.numSubUpdates, 1);
    if (reliable) this.#count(Scb.numReliableSubs, 1);
    const received = publishers.map(() => []), ringer = this.#ringer(PUBLISHER_BELL);
    return {
      ...traits,
      actor: new Actor(`subscriber ${id}`),
      id,
      struct,
      ringer,
      signals: 0,
      ringing: false,
      received,
    };
  }

  #count(counter: number, by: number): void {
    this.#view.setUint16(COUNTERS + counter, this.#view.getUint16(COUNTERS + counter, true) + by, true);
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
    this.#reclaim();
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
      const slotId = this.#view.getUint32(struct + PublisherStruct.slotId, true);
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
    while (this.#view.getUint32(struct + PublisherStruct.slot, true) === 0) {
      const outcome = await outcomeOf();
      if (outcome >= 0) break;
      if (outcome === Outcome.noSubscribers) return false;
      await this.#ring(state, this.#subscribers, core);
      if (state.reliable) {
        await this.#await(state, PUBLISHER_BELL, async () => await outcomeOf() !== Outcome.none, core);
      } else await actor.step();
    }
    return true;
  }

  async #read(state: SubscriberState, core: TracedCore): Promise<void> {
    const { struct, actor } = state;
    if (state.polls) await this.#sleepByOwnMeans(state, SUBSCRIBER_BELL, core);
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
    if (this.#view.getUint32(state.struct + SubscriberStruct.madeRoom, true) === 0) return;
    await this.#ring(state, this.#publishers, core);
  }

  async #sleep(state: User): Promise<void> {
    await state.actor.sleep(() => state.signals > 0);
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
    const { id, reliable } = victim;
    if ("received" in victim) {
      await core.removeSubscriber(this.#channel, id, reliable ? 1 : 0, this.#scratch);
      this.#count(Scb.numSubs, -1);
      if (reliable) this.#count(Scb.numReliableSubs, -1);
      this.#count(Scb.numSubUpdates, 1);
      for (const { struct, reliable } of this.#publishers) if (reliable) this.#tellKinds(struct);
      await core.forgetSleeper(SUBSCRIBER_BELL, id);
      this.#wakeReliablePublishers();
    } else {
      await core.removePublisher(this.#channel, id);
      await core.clearHazard(this.#channel, id);
      this.#count(Scb.numPubs, -1);
      await core.forgetSleeper(PUBLISHER_BELL, id);
      this.#publisherRemoved();
    }
  }

  /** What the server does some time after a subscriber has died. */
  #reclaim(): void {
    const suspects = this.#allocate(8 * this.scenario.numSlots),
      reliableIds = this.#allocate(Limit.users / 8);
    for (const { id, reliable, actor } of this.#subscribers) {
      if (reliable && !actor.killed) this.#u8[reliableIds + (id >> 3)] |= 1 << (id & 7);
    }
    if (this.plain.suspectReferences(this.#channel, suspects) > 0) {
      this.plain.freeReferences(this.#channel, suspects, reliableIds);
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
      const refs = decodeRefs(
        this.#view.getBigUint64(CCB + Ccb.slots + Slot.bytes * slotId + Slot.refs, true),
      );
      if (refs.owner !== null) {
        const owner = this.#publishers[refs.owner];
        assert(!owner.actor.killed, `slot ${slotId} belongs to ${owner.actor.name}, which is dead`);
        assert.equal(
          this.#view.getUint32(owner.struct + PublisherStruct.slotId, true),
          slotId,
          "a slot is lost",
        );
      } else {assert.deepEqual(
          [refs.refs, refs.reliableRefs],
          [0, 0],
          `slot ${slotId} is held by nobody alive`,
        );}
    }
  }
}

if (import.meta.main) {
  const [count = "10000", first = String(Date.now() % 2 ** 30)] = Deno.args;
  const model = await CoreModel.create();
  console.log(`seeds from ${first}`);
  for (let i = 0; i < Number(count); i++) await model.run(Number(first) + i);
  console.log(`${count} interleavings, ${model.steps} steps, ${model.kills} kills: all held`);
}
