/** What a server does to a channel's control blocks when users come and go (specification, sections 5.13 to 5.16). */

import { arena } from "./arena.ts";
import { ControlBlockError, type ControlBlocks } from "./control_blocks.ts";
import { DEFAULT_QUEUE_CAPACITY, Limit, queueBlockBytes, QueueIndex } from "./layout.ts";
import { ChannelStruct, Outcome, SnapshotEntry } from "./structs.ts";

/** A subscriber queue has no place in its channel's queue arena. The message is the reference's. */
export class QueueArenaFullError extends Error {
  override readonly name = "QueueArenaFullError";
}

/** Slots that may be held by nobody: a refs word per slot, 0 for those that are in order. */
export type Suspects = Uint8Array<ArrayBuffer>;

/** The server's hand on the control blocks of a channel. None of it waits for anybody. */
export class Registry {
  readonly #arena = arena();
  readonly #blocks: ControlBlocks;

  constructor(blocks: ControlBlocks) {
    this.#blocks = blocks;
  }

  /**
   * Lets publishers know of a subscriber. After `allocateQueue`, before the counters and the client hear of it.
   *
   * @param isNew Whether it starts with the messages that are there. false: it goes on with what it has not read.
   */
  addSubscriber(id: number, vchanId: number, isNew: boolean): void {
    checkUser(id);
    const seeds = isNew && this.#blocks.numSlots > 0;
    this.#withScratch((scratch) =>
      this.#arena.core.registerSubscriber(this.#blocks.struct, id, vchanId, seeds ? 1 : 0, scratch)
    );
  }

  /**
   * Takes a subscriber out, gives back the messages it held, and retires its queue.
   *
   * @returns Ids of the slots that this retired, for the publishers that want to know. Reliable publishers may
   * have waited for it: trigger them.
   */
  removeSubscriber(id: number, reliable: boolean): number[] {
    checkUser(id);
    const retired = this.#withScratch((scratch) => {
      const count = this.#arena.core.removeSubscriber(this.#blocks.struct, id, reliable ? 1 : 0, scratch);
      return Array.from(this.#arena.i32.subarray(scratch >>> 2, (scratch >>> 2) + count));
    });
    // Of a queue arena that contradicts itself nothing can be freed; the subscriber's entry is gone all the same.
    if (this.#blocks.numSlots > 0) this.#arena.core.retireQueue(this.#blocks.struct, id);
    return retired;
  }

  /** Takes back the slots that a publisher owned. */
  removePublisher(id: number): void {
    checkUser(id);
    this.#arena.core.removePublisher(this.#blocks.struct, id);
  }

  /** Notes that nobody with this id sleeps: its user is gone, or new. */
  forgetSleeper(id: number): void {
    checkUser(id);
    for (const kind of ["subscribers", "publishers"] as const) {
      const bell = this.#blocks.doorbell(kind);
      if (bell !== 0) this.#arena.core.forgetSleeper(bell, id);
    }
  }

  /**
   * Notes that a publisher is not among the subscriber queues: it asked to be removed, or its process is dead.
   * Not for one that merely lost its connection: it may be publishing.
   */
  clearHazard(publisherId: number): void {
    checkUser(publisherId);
    this.#arena.core.clearHazard(this.#blocks.struct, publisherId);
  }

  /**
   * Looks for references to messages that subscribers left which were killed between two instructions.
   *
   * @returns The suspected slots, for `freeReferences`; null where there are none. Subscribers that are at work right
   * now are suspected too.
   */
  suspectReferences(): Suspects | null {
    const { numSlots } = this.#blocks;
    if (numSlots === 0) return null;
    return this.#withArray(8 * numSlots, (address) => {
      if (this.#arena.core.suspectReferences(this.#blocks.struct, address) === 0) return null;
      return this.#arena.u8.slice(address, address + 8 * numSlots);
    });
  }

  /**
   * Frees the references of suspected slots in which nothing has changed since. Call it when every living subscriber
   * has long gone on, seconds later. Reliable publishers may have waited: trigger them.
   *
   * @param reliableIds Who of the subscribers is reliable.
   * @returns In how many slots something was freed.
   */
  freeReferences(suspects: Suspects, reliableIds: Iterable<number>): number {
    return this.#withArray(suspects.length + Limit.users / 8, (address) => {
      const bits = address + suspects.length;
      this.#arena.u8.set(suspects, address);
      for (const id of reliableIds) this.#arena.u8[bits + (id >> 3)] |= 1 << (id & 7);
      return this.#arena.core.freeReferences(this.#blocks.struct, address, bits);
    });
  }

  /** How many times a publisher is among the subscriber queues at this moment. */
  hazard(publisherId: number): number {
    return Atomics.load(this.#arena.u32, this.#hazardWord(publisherId));
  }

  /**
   * Notes that a publisher is `depth` times among the subscriber queues, as it says itself when it comes back after a
   * recovery (section 3.6).
   */
  setHazard(publisherId: number, depth: number): void {
    Atomics.store(this.#arena.u32, this.#hazardWord(publisherId), depth);
  }

  #hazardWord(publisherId: number): number {
    checkUser(publisherId);
    const index = this.#arena.u32[(this.#blocks.struct + ChannelStruct.queueIndex) >>> 2];
    return (index + QueueIndex.activePublishers + 4 * publisherId) >>> 2;
  }

  /**
   * Gives a subscriber a queue.
   *
   * @param requested What the subscriber asked for; 0 for the channel's default.
   * @returns The queue's capacity; 0 where the channel has no queues.
   * @throws {QueueArenaFullError} If there is no room for it.
   * @throws {ControlBlockError} If the queue arena contradicts itself.
   */
  allocateQueue(subscriberId: number, requested: number): number {
    checkUser(subscriberId);
    const { shape } = this.#blocks;
    if (shape.numSlots === 0) return 0;
    const standard = shape.queueArenaBytes > 0 ? DEFAULT_QUEUE_CAPACITY : 0;
    const capacity = requested === 0 ? standard : requested;
    if (!Number.isInteger(capacity) || capacity < 0 || capacity > Limit.queueEntries) {
      throw new RangeError(
        `Cannot make a subscriber queue of ${requested}: the capacity is 1 to ${Limit.queueEntries}`,
      );
    }
    if (capacity === 0) return 0;
    const fits = queueBlockBytes(capacity) <= shape.queueArenaBytes;
    const result = fits
      ? this.#arena.core.allocateQueue(this.#blocks.struct, subscriberId, capacity, requested !== 0 ? 1 : 0)
      : Outcome.noRoom;
    if (result === Outcome.noRoom) {
      const left = shape.queueArenaBytes - this.#highWater();
      throw new QueueArenaFullError(
        `subscriber queue capacity ${capacity} does not fit in channel ${shape.channelName} queue arena ` +
          `(${left} of ${shape.queueArenaBytes} bytes remain)`,
      );
    }
    this.#check(result);
    return result;
  }

  /**
   * Takes a subscriber's queue away. Its memory is used again once no publisher can be writing to it.
   *
   * @throws {ControlBlockError} If the queue arena contradicts itself.
   */
  retireQueue(subscriberId: number): void {
    checkUser(subscriberId);
    if (this.#blocks.numSlots > 0) {
      this.#check(this.#arena.core.retireQueue(this.#blocks.struct, subscriberId));
    }
  }

  /**
   * Checks that the queue arena is what a server may work with (section 3.5).
   *
   * @throws {ControlBlockError} If it contradicts itself.
   */
  checkQueues(): void {
    if (this.#blocks.numSlots > 0) this.#check(this.#arena.core.checkArena(this.#blocks.struct));
  }

  /**
   * After a recovery: takes away queues of ids that have no subscriber, and frees blocks that nobody owns.
   *
   * @throws {ControlBlockError} If the queue arena contradicts itself.
   */
  reconcileQueues(): void {
    if (this.#blocks.numSlots > 0) this.#check(this.#arena.core.reconcileQueues(this.#blocks.struct));
  }

  #check(outcome: number): void {
    if (outcome >= 0) return;
    throw new ControlBlockError(
      `Cannot work with the control block of channel ${this.#blocks.shape.channelName}: its queue arena contradicts itself`,
    );
  }

  #highWater(): number {
    const index = this.#arena.u32[(this.#blocks.struct + ChannelStruct.queueIndex) >>> 2];
    return Math.min(this.#arena.u64(index + QueueIndex.nextOffset), this.#blocks.shape.queueArenaBytes);
  }

  /** Room for a snapshot of all slots and for a number per user: what the core's functions ask for. */
  #withScratch<T>(use: (address: number) => T): T {
    return this.#withArray(Math.max(SnapshotEntry.bytes * this.#blocks.numSlots, 4 * Limit.users), use);
  }

  #withArray<T>(byteLength: number, use: (address: number) => T): T {
    const address = this.#arena.allocate(byteLength);
    try {
      return use(address);
    } finally {
      this.#arena.free(address, byteLength);
    }
  }
}

function checkUser(id: number): void {
  if (!Number.isInteger(id) || id < 0 || id >= Limit.users) {
    throw new RangeError(`Cannot name a user ${id}: ids are 0 to ${Limit.users - 1}`);
  }
}
