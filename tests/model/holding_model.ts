/**
 * A model check of what is held: leased slots, published, given back or taken back one by one; several messages at a
 * time, read in order, the newest first, or found by their time. With a kill at any step, like `core_model.ts`.
 *
 * What must hold: a slot has one owner, and none while a message in it is held; a message is as it was published for as
 * long as it is held; nobody holds more than he may, or the same message twice; messages come in order, and those of
 * reliable publishers to reliable subscribers all come; in the end no slot is lost.
 */

import assert from "node:assert/strict";
import { Scb } from "../../shm/layout.ts";
import { Outcome, PublisherStruct, Release, SubscriberStruct } from "../../shm/structs.ts";
import { Random } from "../chaos/random.ts";
import { Machine } from "./machine.ts";
import type { ModelChannel } from "./model_channel.ts";
import { Actor, interleave } from "./scheduler.ts";
import type { TracedCore } from "./traced_core.ts";

/** What is drawn from a seed. */
interface Scenario {
  readonly numSlots: number;
  readonly reliable: boolean;
  /** Slots that each publisher may own at a time. */
  readonly leases: readonly number[];
  readonly subscribers: readonly { readonly reliable: boolean; readonly maxActive: number }[];
  readonly messages: number;
  /** Index over publishers, then subscribers; -1: nobody dies. */
  readonly victim: number;
  readonly victimSteps: number;
}

function draw(random: Random): Scenario {
  const leases = Array.from({ length: 1 + random.below(2) }, () => 1 + random.below(3));
  const subscribers = Array.from({ length: 1 + random.below(2) }, () => ({
    reliable: random.below(3) > 0,
    maxActive: 1 + random.below(3),
  }));
  const users = leases.length + subscribers.length;
  const needed = leases.reduce((sum, count) => sum + count, 0) +
    subscribers.reduce((sum, { maxActive }) => sum + maxActive, 0);
  return {
    numSlots: needed + 1 + random.below(3),
    reliable: random.below(3) > 0,
    leases,
    subscribers,
    messages: 3 + random.below(5),
    victim: random.below(3) === 0 ? random.below(users) : -1,
    victimSteps: 1 + random.below(250),
  };
}

const PAYLOAD_WORDS = 3;
const STEPS_MAX = 200_000;

/** A slot that a publisher owns, and what it has written to it. */
interface Owned {
  readonly slotId: number;
  readonly address: number;
  readonly bufferIndex: number;
}

interface PublisherState {
  readonly actor: Actor;
  readonly id: number;
  readonly struct: number;
  readonly maxLeases: number;
  readonly leases: Owned[];
  published: number;
}

interface SubscriberState {
  readonly actor: Actor;
  readonly id: number;
  readonly struct: number;
  readonly reliable: boolean;
  readonly maxActive: number;
  /** Ordinals of the messages held, by slot. */
  readonly held: Map<number, number>;
  readonly read: Set<number>;
  /** By publisher, the last one read in its turn. */
  readonly last: Map<number, number>;
  /** The highest for which older ones were let go. */
  skippedTo: number;
}

/** Runs the scenarios of seeds. */
export class HoldingModel {
  steps = 0;
  kills = 0;
  /** How often each thing was done: a model that never does it checks nothing. */
  readonly done = { published: 0, leased: 0, released: 0, reclaimed: 0, newest: 0, found: 0, atLimit: 0 };

  private constructor(private readonly machine: Machine) {}

  /** @param spoil Changes a source of the core, to see whether the fault is found. */
  static async create(spoil?: (name: string, source: string) => string): Promise<HoldingModel> {
    return new HoldingModel(await Machine.create(spoil));
  }

  /** @throws {Error} If something does not hold; the seed replays it. */
  async run(seed: number): Promise<void> {
    const random = new Random(seed), scenario = draw(random);
    const { numSlots, leases, subscribers } = scenario;
    try {
      const channel = this.machine.begin(numSlots, leases.length + subscribers.length);
      const world = new World(channel, scenario, random, this.done);
      this.steps += await world.run((step) => this.machine.start(step));
      if (world.killed) this.kills++;
    } catch (error) {
      throw new Error(`seed ${seed}, ${JSON.stringify(scenario)}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

class World {
  readonly #publishers: PublisherState[];
  readonly #subscribers: SubscriberState[];
  readonly #payload: Uint32Array;
  /** Per slot, who owns it as far as he knows. */
  readonly #owners = new Map<number, Actor>();
  /** By ordinal, what was written, and by whom. */
  readonly #contents = new Map<number, { readonly token: number; readonly publisher: number }>();
  /** Ordinals whose publication has come to its end. */
  readonly #complete = new Set<number>();
  #token = 0;
  killed = false;

  constructor(
    private readonly channel: ModelChannel,
    private readonly scenario: Scenario,
    private readonly random: Random,
    private readonly done: HoldingModel["done"],
  ) {
    const { leases, subscribers, reliable } = scenario;
    this.#payload = new Uint32Array(scenario.numSlots * PAYLOAD_WORDS);
    this.#subscribers = subscribers.map(({ reliable, maxActive }, i) => {
      const id = leases.length + i, struct = channel.addSubscriber(id, reliable, maxActive);
      const held = new Map<number, number>(), read = new Set<number>();
      const actor = new Actor(`subscriber ${id}`);
      return { actor, id, struct, reliable, maxActive, held, read, last: new Map(), skippedTo: 0 };
    });
    this.#publishers = leases.map((maxLeases, id) => {
      const struct = channel.addPublisher(id, reliable);
      return { actor: new Actor(`publisher ${id}`), id, struct, maxLeases, leases: [], published: 0 };
    });
    this.#tellKinds();
  }

  #word(struct: number, field: number): number {
    return this.channel.view.getUint32(struct + field, true);
  }

  #setWord(struct: number, field: number, value: number): void {
    this.channel.view.setUint32(struct + field, value, true);
  }

  #tellKinds(): void {
    if (!this.scenario.reliable) return;
    const unreliable = this.#subscribers.filter(({ reliable }) => !reliable).map(({ id }) => id);
    const ours = this.#subscribers.map(({ id }) => id);
    for (const { struct } of this.#publishers) this.channel.tellKinds(struct, { unreliable, ours });
  }

  /** Runs to the end and checks. Returns the number of steps. */
  async run(coreOf: (step: () => Promise<void>) => TracedCore): Promise<number> {
    const users = [...this.#publishers, ...this.#subscribers];
    for (const state of this.#publishers) {
      const core = coreOf(state.actor.step);
      state.actor.start(() => this.#publishAll(state, core));
    }
    for (const state of this.#subscribers) {
      const core = coreOf(state.actor.step);
      state.actor.start(() => this.#readAll(state, core));
    }
    const victim = users[this.scenario.victim];
    const kill = victim === undefined ? null : {
      actor: victim.actor,
      due: () => victim.actor.steps >= this.scenario.victimSteps,
      cleanUp: () => {
        this.killed = true;
        const server = new Actor("server"), core = coreOf(server.step);
        server.start(() => this.#cleanUp(victim, core));
        return server;
      },
    };
    const plan = { random: this.random, stepsMax: STEPS_MAX, kill, maySleep: () => false };
    const steps = await interleave(users.map(({ actor }) => actor), plan);
    for (const { actor } of users) if (actor.killed) await actor.bury();
    const alive = this.#subscribers.filter(({ actor }) => !actor.killed);
    this.channel.freeReferences(alive.filter(({ reliable }) => reliable).map(({ id }) => id));
    for (const subscriber of alive) if (subscriber.reliable) this.#checkNothingLost(subscriber);
    this.#checkNothingLeaked();
    return steps;
  }

  get #publishersDone(): boolean {
    return this.#publishers.every(({ actor }) => actor.done || actor.killed);
  }

  async #publishAll(state: PublisherState, core: TracedCore): Promise<void> {
    const { messages } = this.scenario;
    while (state.published < messages && await this.#publishOne(state, core));
    for (const lease of state.leases.splice(0)) await this.#giveBack(state, lease, core);
    const held = this.#heldSlot(state);
    if (held !== null) this.#owners.delete(held.slotId);
    await core.abandonSlot(state.struct);
  }

  /** Does one thing or another. Returns false where nobody is there to read. */
  async #publishOne(state: PublisherState, core: TracedCore): Promise<boolean> {
    const { random } = this, { struct, leases, maxLeases } = state;
    const lease = leases.length > 0 ? random.pick(leases) : null;
    const what = random.below(8);
    if (lease !== null && (what < 2 || leases.length === maxLeases)) {
      leases.splice(leases.indexOf(lease), 1);
      if (what === 0) await this.#giveBack(state, lease, core);
      else await this.#publishLease(state, lease, core);
      return true;
    }
    if (what === 7 && leases.length < maxLeases) {
      await this.#reclaim(state, random.below(this.scenario.numSlots), core);
      return true;
    }
    if (!await this.#claim(state, core)) return false;
    const held = this.#heldSlot(state)!;
    if (what > 4) {
      this.#hold(state, null);
      leases.push(held);
      this.done.leased++;
      await this.#write(state, held);
    } else {
      await this.#write(state, held);
      await this.#publish(state, held, core);
    }
    return struct > 0;
  }

  /** Gets a slot as the one held. Returns false where a reliable publisher has nobody to publish to. */
  async #claim(state: PublisherState, core: TracedCore): Promise<boolean> {
    while (this.#word(state.struct, PublisherStruct.slot) === 0) {
      const outcome = this.scenario.reliable
        ? await core.claimReliable(state.struct, 0)
        : await core.claimUnreliable(state.struct);
      if (outcome === Outcome.noSubscribers) return false;
      if (outcome >= 0) this.#own(state, outcome);
      else await state.actor.step();
    }
    return true;
  }

  #own({ actor }: PublisherState, slotId: number): void {
    const owner = this.#owners.get(slotId);
    assert(owner === undefined || owner.killed, `${actor.name} takes slot ${slotId} of ${owner?.name}`);
    for (const subscriber of this.#subscribers) {
      assert(
        subscriber.actor.killed || !subscriber.held.has(slotId),
        `${actor.name} takes slot ${slotId}, which ${subscriber.actor.name} holds`,
      );
    }
    this.#owners.set(slotId, actor);
  }

  #heldSlot({ struct }: PublisherState): Owned | null {
    const address = this.#word(struct, PublisherStruct.slot);
    const slotId = this.#word(struct, PublisherStruct.slotId);
    const bufferIndex = this.#word(struct, PublisherStruct.bufferIndex);
    return address === 0 ? null : { slotId, address, bufferIndex };
  }

  #hold({ struct }: PublisherState, slot: Owned | null): void {
    this.#setWord(struct, PublisherStruct.slot, slot?.address ?? 0);
    if (slot === null) return;
    this.#setWord(struct, PublisherStruct.slotId, slot.slotId);
    this.#setWord(struct, PublisherStruct.bufferIndex, slot.bufferIndex);
  }

  async #write({ actor }: PublisherState, { slotId }: Owned): Promise<void> {
    const token = ++this.#token;
    for (let i = 0; i < PAYLOAD_WORDS; i++) {
      await actor.step();
      this.#payload[slotId * PAYLOAD_WORDS + i] = token;
    }
  }

  /** Publishes the slot held. Its time is its token: unlike those of all others. */
  async #publish(state: PublisherState, { slotId }: Owned, core: TracedCore): Promise<void> {
    const { struct } = state, token = this.#payload[slotId * PAYLOAD_WORDS];
    this.#setWord(struct, PublisherStruct.time + 8, token);
    this.#owners.delete(slotId);
    await core.beginPublish(struct, PAYLOAD_WORDS * 4, 0);
    const ordinal = this.#word(struct, PublisherStruct.ordinal);
    this.#contents.set(ordinal, { token, publisher: state.id });
    await core.endPublish(struct, PAYLOAD_WORDS * 4, 0);
    this.#complete.add(ordinal);
    state.published++;
    this.done.published++;
    const next = this.#heldSlot(state);
    if (next !== null) this.#own(state, next.slotId);
  }

  async #publishLease(state: PublisherState, lease: Owned, core: TracedCore): Promise<void> {
    const held = this.#heldSlot(state);
    this.#hold(state, lease);
    // A reliable publisher takes no next slot.
    this.#setWord(state.struct, PublisherStruct.reliable, 1);
    await this.#publish(state, lease, core);
    this.#setWord(state.struct, PublisherStruct.reliable, this.scenario.reliable ? 1 : 0);
    this.#hold(state, held);
  }

  async #giveBack(state: PublisherState, lease: Owned, core: TracedCore): Promise<void> {
    const held = this.#heldSlot(state);
    this.#hold(state, lease);
    this.#owners.delete(lease.slotId);
    await core.abandonSlot(state.struct);
    this.#hold(state, held);
    this.done.released++;
  }

  async #reclaim(state: PublisherState, slotId: number, core: TracedCore): Promise<void> {
    const held = this.#heldSlot(state);
    this.#hold(state, null);
    if (await core.reclaim(state.struct, slotId) >= 0) {
      this.#own(state, slotId);
      const reclaimed = this.#heldSlot(state)!;
      state.leases.push(reclaimed);
      this.#hold(state, null);
      this.done.reclaimed++;
      await this.#write(state, reclaimed);
    }
    this.#hold(state, held);
  }

  async #readAll(state: SubscriberState, core: TracedCore): Promise<void> {
    while (true) {
      const over = this.#publishersDone;
      const outcome = await this.#readOne(state, core);
      if (outcome === Outcome.atLimit) {
        assert.equal(state.held.size, state.maxActive, `${state.actor.name} is at its limit`);
        this.done.atLimit++;
        assert(await this.#release(state, core) & Release.starved, "a release says that a read waits for it");
      } else if (outcome >= 0) {
        if (this.random.below(3) === 0) await this.#release(state, core);
      } else if (state.held.size > 0) await this.#release(state, core);
      else if (over && await core.mayHaveUnread(state.struct) === 0) return;
      else await state.actor.step();
    }
  }

  async #readOne(state: SubscriberState, core: TracedCore): Promise<number> {
    const { struct, actor } = state, what = this.random.below(8);
    if (what === 6 && this.#contents.size > 0) return await this.#find(state, core);
    const newest = what === 7, completeBefore = newest ? [...this.#complete] : [];
    const slotId = newest ? await core.readNewest(struct) : await core.readNext(struct);
    if (slotId < 0) return slotId;
    const ordinal = this.#word(struct, SubscriberStruct.ordinal);
    const { publisher } = this.#contents.get(ordinal)!, last = state.last.get(publisher) ?? 0;
    assert(ordinal > last, `${actor.name}: ${ordinal} of publisher ${publisher} after ${last}`);
    state.last.set(publisher, ordinal);
    if (newest) {
      this.done.newest++;
      const overwritten = !this.scenario.reliable || !state.reliable;
      // What it had found by its time, or passed over before, is not new to it.
      const from = Math.max(ordinal, state.skippedTo);
      const missed = completeBefore.some((other) => other > from && !state.read.has(other));
      state.skippedTo = from;
      assert(overwritten || !missed, `${actor.name}: ${ordinal} is not the newest of ${completeBefore}`);
    }
    await this.#check(state, slotId, ordinal);
    return slotId;
  }

  async #find(state: SubscriberState, core: TracedCore): Promise<number> {
    const [ordinal, { token }] = this.random.pick([...this.#contents]);
    const slotId = await core.find(state.struct, token, 0);
    if (slotId < 0) return slotId;
    const found = this.#word(state.struct, SubscriberStruct.ordinal);
    assert.equal(found, ordinal, `${state.actor.name} finds another message than that of ${token}`);
    this.done.found++;
    await this.#check(state, slotId, ordinal);
    return slotId;
  }

  /** Looks at a message just read. */
  async #check(state: SubscriberState, slotId: number, ordinal: number): Promise<void> {
    const { actor, held } = state;
    assert(!held.has(slotId), `${actor.name} holds slot ${slotId} twice`);
    held.set(slotId, ordinal);
    state.read.add(ordinal);
    assert(held.size <= state.maxActive, `${actor.name} holds ${held.size} messages`);
    await this.#checkPayload(state, slotId, ordinal);
  }

  async #checkPayload({ actor }: SubscriberState, slotId: number, ordinal: number): Promise<void> {
    for (let i = 0; i < PAYLOAD_WORDS; i++) {
      await actor.step();
      const word = this.#payload[slotId * PAYLOAD_WORDS + i];
      assert.equal(word, this.#contents.get(ordinal)!.token, `${actor.name}: message ${ordinal} is damaged`);
    }
  }

  /** Releases one of the messages held, which must be what it was. */
  async #release(state: SubscriberState, core: TracedCore): Promise<number> {
    const [slotId, ordinal] = this.random.pick([...state.held]);
    await this.#checkPayload(state, slotId, ordinal);
    state.held.delete(slotId);
    return await core.release(state.struct, slotId);
  }

  /** What the server does when a client's connection ends. */
  async #cleanUp(victim: PublisherState | SubscriberState, core: TracedCore): Promise<void> {
    const { channel } = this, { id } = victim;
    if ("held" in victim) {
      await core.removeSubscriber(channel.address, id, victim.reliable ? 1 : 0, channel.scratch);
      channel.count(Scb.numSubs, -1);
      if (victim.reliable) channel.count(Scb.numReliableSubs, -1);
      channel.count(Scb.numSubUpdates, 1);
      this.#tellKinds();
    } else {
      await core.removePublisher(channel.address, id);
      await core.clearHazard(channel.address, id);
      channel.count(Scb.numPubs, -1);
    }
  }

  #checkNothingLost({ actor, read, skippedTo }: SubscriberState): void {
    if (!this.scenario.reliable) return;
    for (const ordinal of this.#complete) {
      assert(ordinal <= skippedTo || read.has(ordinal), `${actor.name}: message ${ordinal} is missing`);
    }
  }

  /** All have given back what they had. */
  #checkNothingLeaked(): void {
    for (let slotId = 0; slotId < this.scenario.numSlots; slotId++) {
      const { owner, refs, reliableRefs } = this.channel.refs(slotId);
      assert.equal(owner, null, `slot ${slotId} belongs to publisher ${owner}, which has left`);
      assert.deepEqual([refs, reliableRefs], [0, 0], `slot ${slotId} is held by nobody alive`);
    }
  }
}
