/** The reading end of a channel on mapped memory, without any server (specification, sections 5.7, 5.9, 5.11). */

import { signal } from "../ffi/eventfd.ts";
import { arena } from "./arena.ts";
import { MessageBuffers } from "./buffers.ts";
import { type ChannelEndOptions, checkEnd } from "./channel_end.ts";
import { type ChecksumFunction, checksumMatches } from "./checksum.ts";
import { ControlBlockError, type ControlBlocks } from "./control_blocks.ts";
import { Ringer, type Trigger } from "./doorbell.ts";
import { Limit, Prefix, PrefixFlag } from "./layout.ts";
import { RetirementNotifier } from "./retirement.ts";
import { Outcome, Release, SnapshotEntry, SubscriberStruct } from "./structs.ts";

/** Options of a reading end. */
export interface ReadingEndOptions extends ChannelEndOptions {
  /** How many messages may be held at a time. Default: 1. */
  readonly maxActiveMessages?: number;
  /** Whether activation messages of reliable publishers are read like others. Default: false. */
  readonly passActivation?: boolean;
  /** Whether messages missed are counted. Default: true. */
  readonly detectDrops?: boolean;
  /** Unread messages kept for it at the most; older ones are dropped. Not for reliable ones. Default: 0, all. */
  readonly backlog?: number;
  /** How checksums are made; null: as publishers of ours and of C++ do, in either way. Default: null. */
  readonly checksum?: ChecksumFunction | null;
  /** Whether messages may be written to. Default: false. */
  readonly writable?: boolean;
}

/** Buffers that turn up while one message is being read. */
const BUFFER_TRIES = Limit.buffers;

/**
 * Reads messages, each once, in the order of their ordinals.
 *
 * A read allocates nothing: what it found is in the fields of this object until the next read. The message itself
 * is held, and its bytes stay as they are, until it is released.
 */
export class ReadingEnd implements Disposable {
  readonly #arena = arena();
  readonly #core = this.#arena.core;
  readonly #blocks: ControlBlocks;
  readonly #buffers: MessageBuffers;
  readonly #options: ReadingEndOptions;
  readonly #reliable: boolean;
  readonly #maxActive: number;
  readonly #struct: number;
  readonly #memory: DisposableStack;
  readonly #retirement = new RetirementNotifier();
  /** Per slot: 1 + the index of the buffer of the message held, 0 for none. */
  readonly #held: Uint16Array<ArrayBuffer>;
  readonly #ringer: Ringer;
  #ownTrigger = -1;
  /** Bits of `Release` that something is to be done about. */
  #watched = 0;
  #onAllReleased: (() => void) | null = null;
  /** Whether reliable publishers may wait for this subscriber to be there, or for what it let go unread. */
  #greets = true;
  /** Messages published when all that a read found were messages whose buffers cannot be had; -1: not so. */
  #stuckAt = -1;
  #disposed = false;

  /** The words of the core's struct, by `SubscriberStruct`. For reading only. */
  readonly fields: Uint32Array<ArrayBuffer>;

  /** @throws {RangeError} If ids or sizes are impossible. */
  constructor(options: ReadingEndOptions) {
    checkEnd(options);
    const { sessionId, resolvedName, blocks, checksumBytes = 4, metadataBytes = 0, maxActiveMessages = 1 } =
      options;
    if (!Number.isInteger(maxActiveMessages) || maxActiveMessages < 1) {
      throw new RangeError(
        `Cannot read channel ${resolvedName} holding ${maxActiveMessages} messages: 1 is the least`,
      );
    }
    this.#options = options;
    this.#blocks = blocks;
    this.#reliable = options.reliable ?? false;
    this.#maxActive = maxActiveMessages;
    this.#held = new Uint16Array(blocks.numSlots);
    using cleanup = new DisposableStack();
    this.#buffers = cleanup.use(
      new MessageBuffers(
        {
          sessionId,
          resolvedName,
          blocks,
          checksumBytes,
          metadataBytes,
          writable: options.writable ?? false,
        },
        options.split ?? null,
      ),
    );
    const allocate = (bytes: number) => {
      const address = this.#arena.allocate(bytes);
      cleanup.defer(() => this.#arena.free(address, bytes));
      return address;
    };
    this.#ringer = cleanup.use(new Ringer(blocks, "publishers"));
    this.#struct = allocate(SubscriberStruct.bytes);
    this.fields = this.#arena.u32.subarray(this.#struct >>> 2, (this.#struct + SubscriberStruct.bytes) >>> 2);
    this.#describe(allocate);
    this.#memory = cleanup.move();
  }

  /** The reads, to be tried again. */
  readonly #again = {
    next: () => this.#core.readNext(this.#struct),
    newest: () => this.#core.readNewest(this.#struct),
  };

  /** Slot of the message read last. */
  get slotId(): number {
    return this.fields[SubscriberStruct.slotId / 4];
  }

  /** Bytes of the message read last. */
  get size(): number {
    return this.fields[SubscriberStruct.messageSize / 4];
  }

  /** Ordinal of the message read last. */
  get ordinal(): number {
    const low = SubscriberStruct.ordinal / 4;
    return this.fields[low] + this.fields[low + 1] * 0x1_0000_0000;
  }

  /** Messages missed between the one read last and the one before. */
  get dropped(): number {
    return this.fields[SubscriberStruct.drops / 4];
  }

  /** CLOCK_MONOTONIC at publication of the message read last, in nanoseconds. */
  get timestampNs(): bigint {
    return this.#arena.view.getBigUint64(this.#struct + SubscriberStruct.timestamp, true);
  }

  /** Virtual channel of the message read last, -1 for none. */
  get vchanId(): number {
    return this.fields[SubscriberStruct.messageVchan / 4] | 0;
  }

  /** Whether the message read last is an activation. */
  get isActivation(): boolean {
    return this.fields[SubscriberStruct.activation / 4] !== 0;
  }

  /** The slot of the message read last, to its end; the message is the first `size` bytes. The same view every time. */
  get slotView(): Uint8Array<ArrayBuffer> {
    return this.#buffers.payload(this.fields[SubscriberStruct.bufferIndex / 4], this.slotId);
  }

  /** The message read last: a new view of its bytes. They stay as they are until it is released. */
  get payload(): Uint8Array<ArrayBuffer> {
    return this.slotView.subarray(0, this.size);
  }

  /** The metadata of the message read last. The same view every time. */
  get metadata(): Uint8Array<ArrayBuffer> {
    return this.metadataOf(this.fields[SubscriberStruct.bufferIndex / 4], this.slotId);
  }

  /** The fixed part of the prefix of a message held. The same view every time. */
  prefixOf(bufferIndex: number, slotId: number): Uint32Array<ArrayBuffer> {
    return this.#buffers.prefix(bufferIndex, slotId);
  }

  /** The metadata of a message held. The same view every time. */
  metadataOf(bufferIndex: number, slotId: number): Uint8Array<ArrayBuffer> {
    return this.#buffers.parts(bufferIndex, slotId).metadata;
  }

  /** Where a message held is in the arena: see `MessageBuffers.address`. */
  addressOf(bufferIndex: number, slotId: number): number {
    return this.#buffers.address(bufferIndex, slotId);
  }

  /** What a user's allocator calls the memory of a message held; null where none made it. */
  handleOf(bufferIndex: number, slotId: number): bigint | null {
    return this.#buffers.handle(bufferIndex, slotId);
  }

  /** Whether the message read last has no checksum, or the right one. */
  get checksumMatches(): boolean {
    const index = this.fields[SubscriberStruct.bufferIndex / 4], { slotId } = this;
    if ((this.#buffers.prefix(index, slotId)[Prefix.flags / 4] & PrefixFlag.checksum) === 0) return true;
    return checksumMatches(this.#buffers.parts(index, slotId), this.payload, this.#options.checksum ?? null);
  }

  /** Payload bytes of the slots of the newest buffer; 0 before the first message. */
  get slotBytes(): number {
    this.#buffers.refresh();
    return this.#buffers.newestSlotBytes;
  }

  /** Messages held. */
  get active(): number {
    return this.fields[SubscriberStruct.active / 4];
  }

  /** Whether as many messages are held as may be: reads find nothing until one is released. */
  get atLimit(): boolean {
    return this.active >= this.#maxActive;
  }

  /** Whether there is a message that a read would find, as far as can be told without taking it. */
  get mayHaveUnread(): boolean {
    if (this.#stuckAt >= 0 && this.#stuckAt === this.#blocks.totals.messages) return false;
    const unread = this.#core.mayHaveUnread(this.#struct) !== 0;
    this.#tellOfRoom();
    return unread;
  }

  /** Whether anything was published since the last look: all but for nothing, and touches nothing else. */
  get hasNews(): boolean {
    return this.#core.hasNews(this.#struct) !== 0;
  }

  /** Has buffers looked for again, that could not be had. */
  lookForBuffers(): void {
    this.#stuckAt = -1;
  }

  /** Retirement notifications that a pipe has no room for as yet. */
  get unsentRetirements(): number {
    return this.#retirement.unsent;
  }

  /**
   * Reads the oldest unread message.
   *
   * @returns false where there is none, or as many are held as may be.
   * @throws {ControlBlockError} If a slot says that its message is larger than the slot; that message is skipped.
   */
  readNext(): boolean {
    if (this.#disposed) return this.#refuse();
    const outcome = this.#core.readNext(this.#struct);
    return outcome >= 0 ? this.#hold(outcome) : this.#readWithout(outcome, this.#again.next, true);
  }

  /** Reads the newest message and lets all older ones go. Otherwise like `readNext`. */
  readNewest(): boolean {
    if (this.#disposed) return this.#refuse();
    const outcome = this.#core.readNewest(this.#struct);
    return outcome >= 0 ? this.#hold(outcome) : this.#readWithout(outcome, this.#again.newest, false);
  }

  /** Reads the message that was published at a time, be it read before or not, unless it is held. */
  find(timestampNs: bigint): boolean {
    if (this.#disposed) return this.#refuse();
    const low = Number(BigInt.asUintN(32, timestampNs)),
      high = Number(BigInt.asUintN(32, timestampNs >> 32n));
    const find = () => this.#core.find(this.#struct, low, high);
    const outcome = find();
    return outcome >= 0 ? this.#hold(outcome) : this.#readWithout(outcome, find, false);
  }

  /** Whether the message of a slot is held. */
  holds(slotId: number): boolean {
    return this.#held[slotId] !== 0;
  }

  /** Lets a message go. Its bytes may be overwritten from now on. Does nothing if it is not held. */
  release(slotId: number): void {
    if (!(this.#held[slotId] > 0)) return;
    this.#held[slotId] = 0;
    const released = this.#core.release(this.#struct, slotId) & this.#watched;
    if (released !== 0) this.#follow(released);
  }

  /** Does what a release makes necessary. */
  #follow(released: number): void {
    if (released & Release.retired) this.#retirement.notify(this.fields[SubscriberStruct.retiredSlot / 4]);
    if (released & Release.unblocks) this.#wakePublishers();
    if (released & Release.starved) signal(this.#ownTrigger);
    if (released & Release.released && this.active === 0) this.#onAllReleased?.();
  }

  /** Tells nobody anything any more, and calls back when no message is held: now, or at a release. Reads are over. */
  leave(allReleased: () => void): void {
    this.#watched = Release.released;
    if (this.active === 0) return allReleased();
    this.#onAllReleased = allReleased;
  }

  /** Replaces the triggers of reliable publishers. Whoever is new must be signalled once. */
  setPublisherTriggers(triggers: readonly Trigger[]): void {
    this.#ringer.setTriggers(triggers);
    this.#greets = true;
    this.#watch(Release.unblocks, triggers.length > 0);
  }

  /** Replaces the write ends of the retirement pipes. Non-blocking, and open until they are replaced in turn. */
  setRetirementPipes(fdNumbers: readonly number[]): void {
    this.#retirement.setPipes(fdNumbers);
    this.#watch(Release.retired, this.#retirement.wanted);
  }

  #watch(bit: number, wanted: boolean): void {
    this.#watched = wanted ? this.#watched | bit : this.#watched & ~bit;
  }

  /** Sets the subscriber's own trigger: written to when a message that had to wait for a release can be read. */
  setOwnTrigger(fdNumber: number): void {
    this.#ownTrigger = fdNumber;
    this.#watch(Release.starved, true);
  }

  /** Releases all messages held, and unmaps the buffers: their views are empty from then on. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#onAllReleased = null;
    for (let slotId = 0; slotId < this.#held.length; slotId++) this.release(slotId);
    this.#disposed = true;
    this.#memory.dispose();
  }

  #refuse(): never {
    throw new Error(`Cannot read channel ${this.#options.resolvedName}: the subscriber is closed`);
  }

  #hold(slotId: number): true {
    this.#held[slotId] = this.fields[SubscriberStruct.bufferIndex / 4] + 1;
    if (this.fields[SubscriberStruct.madeRoom / 4] !== 0) this.#tellOfRoom();
    return true;
  }

  /** Goes on where the core has read nothing. */
  #readWithout(outcome: number, again: () => number, inOrder: boolean): boolean {
    let stuckAt = -1;
    for (let tries = 0; outcome === Outcome.needsBuffer && tries < BUFFER_TRIES; tries++) {
      // Room that earlier entries made is forgotten when the core is called again.
      this.#tellOfRoom();
      const { messages } = this.#blocks.totals;
      if (!this.#mapBuffer()) {
        stuckAt = messages;
        // What the server is asked about keeps its turn.
        if (!inOrder || this.#buffers.asking) break;
        this.#core.skipEntry(this.#struct);
      }
      outcome = again();
    }
    if (outcome >= 0) return this.#hold(outcome);
    this.#stuckAt = stuckAt;
    this.#tellOfRoom();
    if (outcome === Outcome.malformed) {
      const index = this.fields[SubscriberStruct.bufferIndex / 4];
      throw new ControlBlockError(
        `Cannot read message ${this.ordinal} of channel ${this.#options.resolvedName}: slot ${this.slotId} of ` +
          `${this.#buffers.slotBytes(index)} bytes says that it has ${this.size}; the message was skipped`,
      );
    }
    if (outcome === Outcome.none) {
      if (this.#greets) this.#ringer.ring();
      this.#greets = false;
      this.#retirement.flush();
      this.#buffers.unmapUnused(this.#held);
    }
    return false;
  }

  /** Maps the buffer of the message that the core has stopped at. */
  #mapBuffer(): boolean {
    const mapped = this.#buffers.map(this.fields[SubscriberStruct.bufferIndex / 4]);
    this.fields[SubscriberStruct.numBuffers / 4] = this.#buffers.count;
    return mapped;
  }

  /** Messages were let go without being read: publishers may go on, and their slots may be retired. */
  #tellOfRoom(): void {
    const { fields } = this;
    if (fields[SubscriberStruct.madeRoom / 4] === 0) return;
    const retired = fields[SubscriberStruct.snapshot / 4] >>> 2;
    const count = fields[SubscriberStruct.numRetired / 4];
    for (let i = 0; i < count && this.#retirement.wanted; i++) {
      this.#retirement.notify(this.#arena.i32[retired + i]);
    }
    this.#wakePublishers();
  }

  /** What an unreliable subscriber lets go is seldom what publishers wait for: not worth an eventfd each time. */
  #wakePublishers(): void {
    if (this.#reliable) this.#ringer.ring();
    else this.#ringer.ringSleepers();
  }

  /** Fills in the core's struct. */
  #describe(allocate: (bytes: number) => number): void {
    const { id, vchanId = -1, passActivation = false, detectDrops = true, backlog = 0 } = this.#options;
    const { numSlots } = this.#blocks, { view } = this.#arena;
    const set = (field: number, value: number) => view.setInt32(this.#struct + field, value, true);
    set(SubscriberStruct.channel, this.#blocks.struct);
    set(SubscriberStruct.id, id);
    set(SubscriberStruct.vchan, vchanId);
    set(SubscriberStruct.reliable, this.#reliable ? 1 : 0);
    set(SubscriberStruct.passActivation, passActivation ? 1 : 0);
    set(SubscriberStruct.detectDrops, detectDrops ? 1 : 0);
    set(SubscriberStruct.backlog, this.#reliable ? 0 : backlog);
    set(SubscriberStruct.maxActive, this.#maxActive);
    set(SubscriberStruct.snapshot, allocate(SnapshotEntry.bytes * numSlots));
    set(SubscriberStruct.delivered, allocate(8 * numSlots));
    set(SubscriberStruct.lastOrdinals, allocate(vchanId === -1 ? 8 * Limit.users : 8));
    set(SubscriberStruct.slotBytes, this.#buffers.table);
  }
}
