/** The publishing end of a channel on mapped memory, without any server (specification, sections 5.2 to 5.6). */

import { clockInto, monotonicMs } from "../ffi/clock.ts";
import { arena } from "./arena.ts";
import { MessageBuffers } from "./buffers.ts";
import { type ChannelEndOptions, checkEnd } from "./channel_end.ts";
import type { ChecksumFunction } from "./checksum.ts";
import type { ControlBlocks } from "./control_blocks.ts";
import { Ringer, type Trigger } from "./doorbell.ts";
import { grownSlotBytes, Prefix, PrefixFlag, Slot, SlotFlag } from "./layout.ts";
import { type LeasedSlot, LeaseError, Leases } from "./leases.ts";
import { RetirementNotifier } from "./retirement.ts";
import { PublisherStruct, SnapshotEntry } from "./structs.ts";
import { SubscriberKinds } from "./subscriber_kinds.ts";

/** Options of a publishing end. */
export interface PublishingEndOptions extends ChannelEndOptions {
  /** Size of the slots to begin with, rounded up to a multiple of 64. */
  readonly slotBytes: number;
  /** Whether slots never grow. Default: false. */
  readonly fixedSize?: boolean;
  /** Whether it passes on messages of another machine. Default: false. */
  readonly tunnel?: boolean;
  /** Computes the checksum of each message. Default: they have none. */
  readonly checksum?: ChecksumFunction | null;
  /** Told before slots grow, with their size and the one to be; what it throws keeps them as they are. */
  readonly onResize?: (fromBytes: number, toBytes: number) => void;
  /** Whether slots that everybody has read are used again before those that were never used. Default: false. */
  readonly preferRetiredSlots?: boolean;
  /** Whether slots taken from unread messages count as retired. Default: true. */
  readonly notifyForcedReuse?: boolean;
  /** Slots that it may own at a time: those leased, and the one held. Default: 1. */
  readonly maxLeases?: number;
  /** Whether each publication wakes the subscribers at once; else `flush` does. Default: true. */
  readonly autoFlush?: boolean;
  /** Who owns the buffers made. Default: this process's user. */
  readonly owner?: { readonly uid: number; readonly gid: number };
}

/**
 * So long it counts for nothing that the bits of a subscriber are clear that may be in its first read, which takes
 * microseconds where it is not interrupted, and of which nothing else is known (`shm/core/reuse.ts`).
 */
const DOUBT_MS = 500;

/** Words of the prefix that publishing writes; the first one is the bridges' scratch. */
const PREFIX_WORDS = Prefix.fixedBytes / 4;

/**
 * Publishes messages.
 *
 * An unreliable publisher holds one slot in advance; a reliable one takes a slot when asked for a buffer, and only
 * one whose message every reliable subscriber has read. Nothing here waits: where a reliable publisher gets no
 * buffer, its trigger is written to when it is worth trying again.
 */
export class PublishingEnd implements Disposable {
  readonly #arena = arena();
  readonly #core = this.#arena.core;
  readonly #u32 = this.#arena.u32;
  readonly #blocks: ControlBlocks;
  readonly #buffers: MessageBuffers;
  readonly #options: PublishingEndOptions;
  readonly #reliable: boolean;
  readonly #struct: number;
  /** Index of the struct's first word. */
  readonly #word: number;
  readonly #prefix: Uint32Array<ArrayBuffer>;
  readonly #checksum: ChecksumFunction | null;
  readonly #leases: Leases;
  /** What it knows of the subscribers. */
  readonly subscriberKinds: SubscriberKinds;
  readonly #timePointer: Deno.PointerObject;
  /** The buffers, and what is allocated in the arena. */
  readonly #memory: DisposableStack;
  readonly #retirement = new RetirementNotifier();
  readonly #ringer: Ringer;
  readonly #autoFlush: boolean;
  #unflushed = false;
  /** Since when it got no slot only because of such subscribers; 0: it does not. */
  #doubtsSince = 0;
  #disposed = false;

  /**
   * Makes or maps the message buffers, and takes the first slot of an unreliable publisher.
   *
   * @throws {RangeError} If ids or sizes are impossible.
   */
  constructor(options: PublishingEndOptions) {
    checkEnd(options);
    const { sessionId, resolvedName, blocks, checksumBytes = 4, metadataBytes = 0, owner } = options;
    this.#options = options;
    this.#blocks = blocks;
    this.#reliable = options.reliable ?? false;
    this.#checksum = options.checksum ?? null;
    this.#autoFlush = options.autoFlush ?? true;
    using cleanup = new DisposableStack();
    this.#buffers = cleanup.use(
      new MessageBuffers(
        { sessionId, resolvedName, blocks, checksumBytes, metadataBytes, writable: true, owner },
        options.split ?? null,
      ),
    );
    const complete = this.#buffers.ensure(options.slotBytes);
    this.#ringer = cleanup.use(new Ringer(blocks, "subscribers"));
    const allocate = (bytes: number) => {
      const address = this.#arena.allocate(bytes);
      cleanup.defer(() => this.#arena.free(address, bytes));
      return address;
    };
    this.#struct = allocate(PublisherStruct.bytes);
    this.#word = this.#struct >>> 2;
    this.subscriberKinds = new SubscriberKinds(this.#struct, blocks.counters, this.#reliable);
    this.#leases = new Leases(this.#struct, options.id, options.maxLeases ?? 1);
    this.#prefix = new Uint32Array(this.#arena.buffer, this.#struct + PublisherStruct.prefix, PREFIX_WORDS);
    this.#timePointer = this.#arena.pointer(this.#struct + PublisherStruct.time);
    this.#describe(checksumBytes, metadataBytes);
    if (!this.#reliable) {
      const victims = allocate(SnapshotEntry.bytes * blocks.numSlots);
      this.#u32[this.#word + PublisherStruct.victims / 4] = victims;
      if (complete) this.#core.claimUnreliable(this.#struct);
    }
    this.#memory = cleanup.move();
  }

  /** Payload bytes of the newest buffer's slots. */
  get slotBytes(): number {
    return this.#buffers.newestSlotBytes;
  }

  /** The slot held, -1 for none. */
  get slotId(): number {
    return this.#holdsSlot ? this.#u32[this.#word + PublisherStruct.slotId / 4] : -1;
  }

  /** Whether the slot held is its own still: a server that takes a publisher for gone gives its slot to others. */
  get ownsSlot(): boolean {
    if (!this.#holdsSlot) return true;
    return this.#leases.owns(this.#u32[this.#word + PublisherStruct.slot / 4]);
  }

  /** Ordinal of the message published last, 0 for none. */
  get ordinal(): number {
    const u32 = this.#u32, word = this.#word + PublisherStruct.ordinal / 4;
    return u32[word] + u32[word + 1] * 0x1_0000_0000;
  }

  /** CLOCK_MONOTONIC at the last publication, in nanoseconds. */
  get timestampNs(): bigint {
    const { view } = this.#arena, time = this.#struct + PublisherStruct.time;
    return view.getBigUint64(time, true) * 1_000_000_000n + view.getBigUint64(time + 8, true);
  }

  /** Whether there are slots that everybody has released: all but for nothing, and touches nothing else. */
  get hasVacancy(): boolean {
    return this.#core.hasVacancy(this.#struct) !== 0;
  }

  /** Retirement notifications that a pipe has no room for as yet. */
  get unsentRetirements(): number {
    return this.#retirement.unsent;
  }

  /**
   * The payload area to write the next message to: that of the slot held, all of it. The same slot's until
   * `publish`. Growing, or another publisher's growing, may give the slot another area: what was written is lost.
   *
   * @param minBytes The least size; the slots grow if it is larger than theirs.
   * @returns null where no slot is to be had: reliable publishers must wait until subscribers have read, or for the
   * first subscriber; for unreliable ones, all slots are held.
   * @throws {RangeError} If the slots would have to grow and have a fixed size.
   */
  buffer(minBytes = 0): Uint8Array<ArrayBuffer> | null {
    if (this.#disposed) throw new Error(`Cannot publish to channel ${this.#name}: the publisher is closed`);
    if (minBytes > this.#buffers.newestSlotBytes || this.#blocks.numBuffers !== this.#buffers.count) {
      if (!this.#growTo(minBytes)) return this.#withoutBuffer();
    }
    if (!this.#holdsSlot && (this.atLeaseLimit || !this.#claim(false))) return this.#withoutBuffer();
    return this.payload;
  }

  /** Nobody reads, and so makes room, who was not told that there is something. */
  #withoutBuffer(): null {
    this.flush();
    return null;
  }

  /** The payload area of the slot held. */
  get payload(): Uint8Array<ArrayBuffer> {
    const u32 = this.#u32, word = this.#word;
    return this.#buffers.payload(
      u32[word + PublisherStruct.bufferIndex / 4],
      u32[word + PublisherStruct.slotId / 4],
    );
  }

  /** Whether it has message buffers: not where the server is to say first where those are that others have made. */
  get prepared(): boolean {
    return this.#buffers.count > 0;
  }

  /** Maps what others have made. Returns false where the server is to say more; until it has, there is no buffer. */
  prepare(): boolean {
    return this.#disposed || this.prepared || this.#growTo(this.#options.slotBytes);
  }

  /** What a user's allocator calls the memory of the slot held; null where none made it, or without a slot. */
  get memoryHandle(): bigint | null {
    if (this.#disposed || !this.#holdsSlot) return null;
    const u32 = this.#u32, word = this.#word;
    return this.#buffers.handle(
      u32[word + PublisherStruct.bufferIndex / 4],
      u32[word + PublisherStruct.slotId / 4],
    );
  }

  /** What a user's allocator calls the memory of a leased slot; null where none made it, or the publisher is closed. */
  leasedHandle({ bufferIndex, slotId }: LeasedSlot): bigint | null {
    return this.#disposed ? null : this.#buffers.handle(bufferIndex, slotId);
  }

  /** Room for the metadata of the message to be published, in the slot held; null without one. */
  get metadata(): Uint8Array<ArrayBuffer> | null {
    if (this.#disposed || !this.#holdsSlot) return null;
    const u32 = this.#u32, word = this.#word;
    return this.#buffers.parts(
      u32[word + PublisherStruct.bufferIndex / 4],
      u32[word + PublisherStruct.slotId / 4],
    ).metadata;
  }

  /** Where the slot held is in the arena: see `MessageBuffers.address`; null without one. */
  get address(): number | null {
    if (this.#disposed || !this.#holdsSlot) return null;
    const u32 = this.#u32, word = this.#word;
    return this.#buffers.address(
      u32[word + PublisherStruct.bufferIndex / 4],
      u32[word + PublisherStruct.slotId / 4],
    );
  }

  /** Slots leased. */
  get numLeases(): number {
    return this.#leases.count;
  }

  /** Whether as many slots are leased as may be. */
  get atLeaseLimit(): boolean {
    return this.#leases.full;
  }

  /** Takes the slot held, with room for a message, out of its turn (section 5.12); null where none is to be had. */
  lease(minBytes = 0): LeasedSlot | null {
    return this.buffer(minBytes) === null ? null : this.#leases.takeHeld();
  }

  /** Takes a certain slot, which everybody must have released; null where it is not to be had. */
  reclaim(slotId: number): LeasedSlot | null {
    if (this.#disposed || this.atLeaseLimit || !(slotId >= 0 && slotId < this.#blocks.numSlots)) return null;
    if (this.#blocks.numBuffers !== this.#buffers.count && !this.#growTo(0)) return null;
    const held = this.#leases.exchange(null);
    const reclaimed = this.#core.reclaim(this.#struct, slotId) >= 0 ? this.#leases.takeHeld() : null;
    // What is leased and what is held must not be more than was agreed.
    this.#leases.exchange(held);
    if (reclaimed !== null && held !== null && this.atLeaseLimit) this.#core.abandonSlot(this.#struct);
    return reclaimed;
  }

  /** The payload area of a leased slot. */
  leasedBuffer({ bufferIndex, slotId }: LeasedSlot): Uint8Array<ArrayBuffer> {
    return this.#buffers.payload(bufferIndex, slotId);
  }

  /** Room for the metadata of a leased slot. */
  leasedMetadata({ bufferIndex, slotId }: LeasedSlot): Uint8Array<ArrayBuffer> {
    return this.#buffers.parts(bufferIndex, slotId).metadata;
  }

  /** Publishes the message in a leased slot like `publish`, and ends the lease. */
  publishLease(slot: LeasedSlot, byteLength: number): number {
    this.#checkLease(slot);
    this.#checkLength(slot.bufferIndex, byteLength);
    this.#leases.forget(slot);
    const held = this.#leases.exchange(slot), u32 = this.#u32, word = this.#word;
    // A reliable publisher takes no next slot.
    u32[word + PublisherStruct.reliable / 4] = 1;
    try {
      this.#send(byteLength, 0);
    } finally {
      u32[word + PublisherStruct.reliable / 4] = this.#reliable ? 1 : 0;
      this.#leases.exchange(held);
      if (this.#blocks.numSubscribers(this.#options.vchanId ?? -1) === 0) {
        this.#core.retire(this.#struct, slot.slotId);
        this.#retirement.notify(slot.slotId);
      }
    }
    return this.ordinal;
  }

  /** Gives a leased slot back without publishing. Does nothing if it is not leased any more. */
  endLease(slot: LeasedSlot): void {
    if (this.#disposed || !slot.leased) return;
    this.#leases.forget(slot);
    const held = this.#leases.exchange(slot);
    this.#core.abandonSlot(this.#struct);
    this.#leases.exchange(held);
  }

  /**
   * Publishes what was written to the buffer, and wakes the subscribers.
   *
   * @param byteLength Size of the message, from 1 to the buffer's.
   * @returns Its ordinal.
   */
  publish(byteLength: number): number {
    const u32 = this.#u32, word = this.#word;
    if (this.#disposed || !this.#holdsSlot) {
      throw new Error(`Cannot publish to channel ${this.#name}: get a buffer first`);
    }
    this.#checkLength(u32[word + PublisherStruct.bufferIndex / 4], byteLength);
    this.#send(byteLength, 0);
    return this.ordinal;
  }

  /**
   * Publishes the message that tells subscribers of a reliable publisher. It has an ordinal, and nobody sees it
   * who did not ask to.
   *
   * @returns Its ordinal; null where no slot is free.
   */
  publishActivation(): number | null {
    if (this.#disposed || this.#buffers.count === 0 || (!this.#holdsSlot && !this.#claim(true))) return null;
    this.#send(1, 1);
    return this.ordinal;
  }

  /** Wakes the subscribers, if something was published without. */
  flush(): void {
    if (!this.#unflushed) return;
    this.#unflushed = false;
    this.#ringer.ring();
  }

  /** Replaces the subscribers' triggers. Whoever is new must be signalled once. */
  setSubscriberTriggers(triggers: readonly Trigger[]): void {
    this.#ringer.setTriggers(triggers);
  }

  /** Replaces the write ends of the retirement pipes. Non-blocking, and open until they are replaced in turn. */
  setRetirementPipes(fdNumbers: readonly number[]): void {
    this.#retirement.setPipes(fdNumbers);
  }

  /** Gives the slot back that it holds, and unmaps the buffers. Before the server is asked to remove the publisher. */
  close(): void {
    if (this.#disposed) return;
    for (const slot of this.#leases.all()) this.endLease(slot);
    this.#core.abandonSlot(this.#struct);
    this.flush();
    this.leave();
  }

  /** Unmaps the buffers, and leaves the slot that it holds alone: the server has given it to others. */
  leave(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#unflushed = false;
    this.#memory.dispose();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  get #name(): string {
    return this.#options.resolvedName;
  }

  get #holdsSlot(): boolean {
    return this.#u32[this.#word + PublisherStruct.slot / 4] !== 0;
  }

  #checkLength(bufferIndex: number, byteLength: number): void {
    const slotBytes = this.#buffers.slotBytes(bufferIndex);
    if (byteLength >= 1 && byteLength <= slotBytes) return;
    throw new RangeError(
      `Cannot publish ${byteLength} bytes to channel ${this.#name}: a message has 1 to ${slotBytes} bytes`,
    );
  }

  #checkLease(slot: LeasedSlot): void {
    const why = this.#disposed
      ? "the publisher is closed"
      : !slot.leased
      ? "it is not leased any more"
      : !this.#leases.owns(slot.address)
      ? "the server has given it to others"
      : null;
    if (why === null) return;
    throw new LeaseError(`Cannot publish slot ${slot.slotId} of channel ${this.#name}: ${why}`);
  }

  #claim(withoutSubscribers: boolean): boolean {
    const outcome = this.#reliable
      ? this.#core.claimReliable(this.#struct, withoutSubscribers ? 1 : 0)
      : this.#core.claimUnreliable(this.#struct);
    if (outcome >= 0) this.#noteForcedReuse();
    else if (this.#u32[this.#word + PublisherStruct.doubts / 4] !== 0) return this.#doubt(withoutSubscribers);
    this.#doubtsSince = 0;
    return outcome >= 0;
  }

  /** There would be a slot, if nobody is in its first read. */
  #doubt(withoutSubscribers: boolean): boolean {
    const now = monotonicMs();
    if (this.#doubtsSince === 0) this.#doubtsSince = now;
    if (now - this.#doubtsSince < DOUBT_MS) return false;
    this.#core.endDoubts(this.#struct);
    return this.#claim(withoutSubscribers);
  }

  #send(byteLength: number, activation: number): void {
    const u32 = this.#u32, word = this.#word, prefix = this.#prefix;
    const target = this.#buffers.prefix(
      u32[word + PublisherStruct.bufferIndex / 4],
      u32[word + PublisherStruct.slotId / 4],
    );
    clockInto(this.#timePointer);
    this.#core.beginPublish(this.#struct, byteLength, activation);
    for (let i = 1; i < PREFIX_WORDS; i++) target[i] = prefix[i];
    try {
      if (this.#checksum !== null) this.#sum(this.#checksum, target, byteLength);
    } finally {
      // Whatever the user's function throws: a message that has its number must go out.
      const sleeper = this.#core.endPublish(this.#struct, byteLength, activation);
      if (this.#autoFlush) this.#ringer.ringFrom(sleeper);
      else this.#unflushed = true;
    }
    this.#noteForcedReuse();
    this.#buffers.unmapUnused();
  }

  /** Adds the checksum to a message whose prefix is complete but for it. */
  #sum(compute: ChecksumFunction, target: Uint32Array, byteLength: number): void {
    const u32 = this.#u32, word = this.#word;
    const index = u32[word + PublisherStruct.bufferIndex / 4];
    const slotId = u32[word + PublisherStruct.slotId / 4];
    const { head, checksum, metadata } = this.#buffers.parts(index, slotId);
    target[Prefix.flags / 4] |= PrefixFlag.checksum;
    checksum.fill(0);
    try {
      compute(checksum, head, metadata, this.#buffers.payload(index, slotId).subarray(0, byteLength));
    } catch (error) {
      target[Prefix.flags / 4] &= ~PrefixFlag.checksum;
      throw error;
    }
  }

  /** The slot just taken had a message that not everybody has read: to those who wait for it, it is retired now. */
  #noteForcedReuse(): void {
    if (!this.#retirement.wanted) return;
    this.#retirement.flush();
    const u32 = this.#u32, word = this.#word, slot = u32[word + PublisherStruct.slot / 4];
    if (slot === 0 || u32[word + PublisherStruct.forced / 4] === 0) return;
    u32[word + PublisherStruct.forced / 4] = 0;
    if (this.#options.notifyForcedReuse === false) return;
    const activation = (u32[(slot + Slot.flags) >>> 2] & SlotFlag.activation) !== 0;
    if (!activation) this.#retirement.notify(u32[word + PublisherStruct.slotId / 4]);
  }

  /** Maps buffers that others have made, and makes one if none has slots of this size. Returns false as `ensure` does. */
  #growTo(minBytes: number): boolean {
    const { fixedSize = false, resolvedName } = this.#options;
    if (!this.#buffers.ensure(this.#buffers.newestSlotBytes)) return false;
    const slotBytes = this.#buffers.newestSlotBytes;
    if (minBytes > slotBytes) {
      if (fixedSize) {
        throw new RangeError(
          `Channel ${resolvedName} is fixed size at ${slotBytes} bytes; can't increase it to ${minBytes} bytes`,
        );
      }
      const grown = grownSlotBytes(slotBytes, minBytes);
      this.#options.onResize?.(slotBytes, grown);
      if (!this.#buffers.ensure(grown)) return false;
    }
    this.#u32[this.#word + PublisherStruct.numBuffers / 4] = this.#buffers.count;
    const slot = this.#u32[this.#word + PublisherStruct.slot / 4];
    if (slot !== 0) this.#core.assignBuffer(this.#struct, slot);
    return true;
  }

  /** Fills in the core's struct. */
  #describe(checksumBytes: number, metadataBytes: number): void {
    const { id, vchanId = -1, tunnel = false, preferRetiredSlots = false } = this.#options;
    const { view } = this.#arena;
    const set = (field: number, value: number) => view.setInt32(this.#struct + field, value, true);
    set(PublisherStruct.channel, this.#blocks.struct);
    set(PublisherStruct.id, id);
    set(PublisherStruct.vchan, vchanId);
    set(PublisherStruct.reliable, this.#reliable ? 1 : 0);
    set(PublisherStruct.tunnel, tunnel ? 1 : 0);
    set(PublisherStruct.preferRetired, preferRetiredSlots ? 1 : 0);
    set(PublisherStruct.numBuffers, this.#buffers.count);
    set(PublisherStruct.ringer, this.#autoFlush ? this.#ringer.struct : 0);
    const prefix = this.#struct + PublisherStruct.prefix;
    view.setUint16(prefix + Prefix.checksumBytes, checksumBytes, true);
    view.setUint16(prefix + Prefix.metadataBytes, metadataBytes, true);
  }
}
