/** What a reliable publisher is told of the subscribers, beyond what shared memory says (`shm/core/reuse.ts`). */

import { arena } from "./arena.ts";
import { Limit } from "./layout.ts";
import { PublisherStruct } from "./structs.ts";
import type { ChannelCounters } from "./system_control_block.ts";

/** The subscribers that one publisher knows of. */
export class SubscriberKinds {
  readonly #arena = arena();
  /** Address of the core's `PublisherStruct`. */
  readonly #struct: number;
  readonly #word: number;
  readonly #counters: ChannelCounters;
  readonly #reliable: boolean;

  constructor(struct: number, counters: ChannelCounters, reliable: boolean) {
    this.#struct = struct;
    this.#word = struct >>> 2;
    this.#counters = counters;
    this.#reliable = reliable;
  }

  /**
   * Whether it should be told which subscribers are unreliable: it is reliable, there are both kinds, and what it
   * was told is of another time. Until told it may wait for an unreliable subscriber; with one reliable subscriber
   * it goes by a flag in the slot, as the reference does.
   */
  get wanted(): boolean {
    const { numReliableSubs, numSubs, numSubUpdates } = this.#counters;
    if (!this.#reliable || numReliableSubs === 0 || numSubs <= numReliableSubs) return false;
    const { u32 } = this.#arena, word = this.#word;
    return u32[word + PublisherStruct.exemptKnown / 4] === 0 ||
      u32[word + PublisherStruct.exemptStamp / 4] !== numSubUpdates;
  }

  /**
   * Tells which subscribers are unreliable: they never hold this publisher up.
   *
   * @param numSubUpdates The counter's value before the server was asked: what it said holds for no later one.
   */
  setUnreliable(ids: Iterable<number>, numSubUpdates: number): void {
    const { u32 } = this.#arena, exempt = this.#idSet(PublisherStruct.exempt);
    exempt.fill(0);
    for (const id of ids) add(exempt, id);
    u32[this.#word + PublisherStruct.exemptStamp / 4] = numSubUpdates;
    u32[this.#word + PublisherStruct.exemptKnown / 4] = 1;
  }

  /**
   * Tells which subscribers are of ours, and so never clear the bits of messages that they have not read: whether the
   * others have read, a reliable publisher finds out.
   *
   * @param numSubUpdates The counter's value before the server was asked: what it said holds for no later one.
   */
  trust(ids: Iterable<number>, numSubUpdates: number): void {
    const { u32 } = this.#arena, stamp = this.#word + PublisherStruct.trustStamp / 4;
    const trusted = this.#idSet(PublisherStruct.trusted);
    if (u32[stamp] !== numSubUpdates) trusted.fill(0);
    for (const id of ids) add(trusted, id);
    u32[stamp] = numSubUpdates;
  }

  /** A bitset of users in the struct. */
  #idSet(field: number): Uint8Array {
    return new Uint8Array(this.#arena.buffer, this.#struct + field, Limit.users / 8);
  }
}

function add(bits: Uint8Array, id: number): void {
  if (id >= 0 && id < Limit.users) bits[id >> 3] |= 1 << (id & 7);
}
