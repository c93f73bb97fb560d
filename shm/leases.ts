/** The slots that a publisher owns: the one that it holds, and those leased (specification, section 5.12). */

import { arena } from "./arena.ts";
import { Slot } from "./layout.ts";
import { PublisherStruct } from "./structs.ts";

/** A slot that a publisher owns, or owned: the same object each time. */
export interface LeasedSlot {
  readonly slotId: number;
  /** Its address in the arena. */
  readonly address: number;
  bufferIndex: number;
  /** Whether it is owned apart from the one that the publisher holds. */
  leased: boolean;
}

/** A leased slot cannot be published: it was before, or given back. */
export class LeaseError extends Error {
  override readonly name = "LeaseError";
}

/** The slots of one publisher. The core knows of the one held only: for the others they change places. */
export class Leases {
  readonly #u32 = arena().u32;
  /** Index of the first word of the core's `PublisherStruct`. */
  readonly #word: number;
  readonly #publisherId: number;
  readonly #max: number;
  readonly #slots: LeasedSlot[] = [];
  #count = 0;

  /** @param max Slots owned at a time: those leased, and the one held. */
  constructor(struct: number, publisherId: number, max: number) {
    this.#word = struct >>> 2;
    this.#publisherId = publisherId;
    this.#max = max;
  }

  /** Slots leased. */
  get count(): number {
    return this.#count;
  }

  /** Whether as many are leased as may be. */
  get full(): boolean {
    return this.#count >= this.#max;
  }

  /** Those leased. */
  all(): LeasedSlot[] {
    return this.#slots.filter((slot) => slot.leased);
  }

  /** Whether the slot at an address is the publisher's, as its refs word says (section 4.6). */
  owns(slotAddress: number): boolean {
    const refs = (slotAddress + Slot.refs) >>> 2;
    return this.#u32[refs + 1] === 0x8000_0000 && this.#u32[refs] === this.#publisherId;
  }

  /** Leases the slot held. */
  takeHeld(): LeasedSlot {
    const slot = this.exchange(null)!;
    slot.leased = true;
    this.#count++;
    return slot;
  }

  /** Ends a lease. */
  forget(slot: LeasedSlot): void {
    slot.leased = false;
    this.#count--;
  }

  /** Puts a slot in place of the one held, which is returned. */
  exchange(slot: LeasedSlot | null): LeasedSlot | null {
    const u32 = this.#u32, word = this.#word, held = this.#held();
    u32[word + PublisherStruct.slot / 4] = slot?.address ?? 0;
    if (slot !== null) {
      u32[word + PublisherStruct.slotId / 4] = slot.slotId;
      u32[word + PublisherStruct.bufferIndex / 4] = slot.bufferIndex;
    }
    return held;
  }

  #held(): LeasedSlot | null {
    const u32 = this.#u32, word = this.#word, address = u32[word + PublisherStruct.slot / 4];
    if (address === 0) return null;
    const slotId = u32[word + PublisherStruct.slotId / 4];
    const bufferIndex = u32[word + PublisherStruct.bufferIndex / 4];
    const slot = this.#slots[slotId] ??= { slotId, address, bufferIndex, leased: false };
    slot.bufferIndex = bufferIndex;
    return slot;
  }
}
