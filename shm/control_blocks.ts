/**
 * The control blocks of a channel (CCB and BCB) as one process sees them: making, mapping and checking them, and
 * reading what they count (specification, sections 4.2 to 4.5, 4.10).
 */

import type { Fd, FileStatus } from "../ffi/fd.ts";
import { createMemory, type MemoryAllocator } from "../ffi/memory_object.ts";
import { arena, type ArenaMapping } from "./arena.ts";
import {
  Bcb,
  Bitset,
  Ccb,
  CONTROL_BLOCK_VERSION,
  type ControlBlockOffsets,
  controlBlockOffsets,
  DEFAULT_QUEUE_CAPACITY,
  Doorbells,
  Limit,
  QueueIndex,
  Slot,
} from "./layout.ts";
import { ChannelStruct } from "./structs.ts";
import type { ChannelCounters } from "./system_control_block.ts";

/** Shared memory that cannot be a channel's control blocks, or contradicts itself. */
export class ControlBlockError extends Error {
  override readonly name = "ControlBlockError";
}

/** The shape of a channel's control blocks. */
export interface ControlBlockShape {
  /** For errors; a new control block also carries the first 63 bytes of it. */
  readonly channelName: string;
  /** 0 for a placeholder: a channel that has subscribers and never had a publisher. */
  readonly numSlots: number;
  /** Room for subscriber queues. */
  readonly queueArenaBytes: number;
}

/** Counters of a channel since it was made. */
export interface ChannelTotals {
  /** Payload bytes. */
  readonly bytes: number;
  /** Publications, including activations. */
  readonly messages: number;
  /** Bytes of the largest message. */
  readonly maxMessageSize: number;
  /** Messages that subscribers missed. */
  readonly drops: number;
}

const encoder = new TextEncoder();

/** Throws a `ControlBlockError` where a channel cannot have this shape. */
export function checkShape(shape: ControlBlockShape): ControlBlockOffsets {
  const { channelName, numSlots, queueArenaBytes } = shape;
  if (!Number.isSafeInteger(numSlots) || numSlots < 0) {
    throw new ControlBlockError(`Cannot lay out channel ${channelName}: it cannot have ${numSlots} slots`);
  }
  if (!Number.isSafeInteger(queueArenaBytes) || queueArenaBytes < 0) {
    throw new ControlBlockError(
      `Cannot lay out channel ${channelName}: a queue arena of ${queueArenaBytes} bytes`,
    );
  }
  const offsets = controlBlockOffsets(numSlots, queueArenaBytes);
  if (offsets.bytes > Limit.controlBlockBytes) {
    throw new ControlBlockError(
      `Cannot lay out channel ${channelName}: ${numSlots} slots and a queue arena of ${queueArenaBytes} bytes need ` +
        `${offsets.bytes} bytes of control block, and ${Limit.controlBlockBytes} is the limit`,
    );
  }
  return offsets;
}

/** The control blocks of a channel, mapped into the arena. Owns both fds. */
export class ControlBlocks implements Disposable {
  readonly #ccb: ArenaMapping;
  readonly #bcb: ArenaMapping;
  readonly #arena = arena();
  readonly #offsets: ControlBlockOffsets;
  /** Index of the word with the number of message buffers, which each publication looks at. */
  readonly #numBuffersWord: number;
  /** Address of the core's `ChannelStruct`. */
  readonly struct: number;
  #file: FileStatus | undefined;

  private constructor(
    readonly shape: ControlBlockShape,
    /** The channel's entry in the system control block. */
    readonly counters: ChannelCounters,
    readonly ccbFd: Fd,
    readonly bcbFd: Fd,
  ) {
    this.#offsets = checkShape(shape);
    using cleanup = new DisposableStack();
    this.#ccb = cleanup.use(
      mapBlock(ccbFd, this.#offsets.bytes, `control block of channel ${shape.channelName}`),
    );
    this.#bcb = cleanup.use(
      mapBlock(bcbFd, Bcb.bytes, `buffer control block of channel ${shape.channelName}`, Doorbells.bytes),
    );
    this.#numBuffersWord = (this.#ccb.address + Ccb.numBuffers) >>> 2;
    this.struct = this.#arena.allocate(ChannelStruct.bytes);
    this.#describe();
    cleanup.move();
  }

  /** New control blocks, in sealed anonymous memory, with the initial values of section 4.10. */
  static create(
    shape: ControlBlockShape,
    counters: ChannelCounters,
    allocate: MemoryAllocator = createMemory,
  ): ControlBlocks {
    using cleanup = new DisposableStack();
    const ccb = cleanup.use(allocate("subspace.ccb", checkShape(shape).bytes));
    const bcb = cleanup.use(allocate("subspace.bcb", Doorbells.bytes));
    const blocks = new ControlBlocks(shape, counters, ccb, bcb);
    blocks.#initialize();
    cleanup.move();
    return blocks;
  }

  /**
   * Maps existing control blocks. Takes both fds over unless it throws.
   *
   * @throws {ControlBlockError} If the memory is too short, of another version, or not of this shape.
   */
  static attach(shape: ControlBlockShape, counters: ChannelCounters, ccbFd: Fd, bcbFd: Fd): ControlBlocks {
    const blocks = new ControlBlocks(shape, counters, ccbFd, bcbFd);
    const { version, numSlots } = blocks.#header();
    if (version === CONTROL_BLOCK_VERSION && numSlots === shape.numSlots) return blocks;
    blocks.#release();
    throw new ControlBlockError(
      version === CONTROL_BLOCK_VERSION
        ? `Cannot use the control block of channel ${shape.channelName}: it has ${numSlots} slots, not ${shape.numSlots}`
        : `Cannot use the control block of channel ${shape.channelName}: it is of version ${version}, and only ` +
          `${CONTROL_BLOCK_VERSION} is known`,
    );
  }

  /** Which file the control block is. */
  get file(): FileStatus {
    return this.#file ??= this.ccbFd.stat();
  }

  get numSlots(): number {
    return this.shape.numSlots;
  }

  /** Size of the control block. */
  get bytes(): number {
    return this.#offsets.bytes;
  }

  get totals(): ChannelTotals {
    const { u32 } = this.#arena, ccb = this.#ccb.address;
    return {
      bytes: this.#arena.u64(ccb + Ccb.totalBytes),
      messages: this.#arena.u64(ccb + Ccb.totalMessages),
      maxMessageSize: u32[(ccb + Ccb.maxMessageSize) >>> 2],
      drops: u32[(ccb + Ccb.totalDrops) >>> 2],
    };
  }

  /** Message buffers that exist, at most 1024 whatever the control block says. */
  get numBuffers(): number {
    const number = this.#arena.i32[this.#numBuffersWord];
    return Math.min(Math.max(number, 0), Limit.buffers);
  }

  /**
   * Announces message buffers that this process has made.
   *
   * @returns false if another process was faster; then `numBuffers` has its number.
   */
  announceBuffers(before: number, after: number): boolean {
    return Atomics.compareExchange(this.#arena.i32, this.#numBuffersWord, before, after) === before;
  }

  /** The ordinal that the next message of a virtual channel gets. */
  nextOrdinal(vchanId = -1): number {
    return this.#arena.u64(this.#ccb.address + Ccb.ordinals + 8 * (vchanId + 1));
  }

  /** Subscribers of a virtual channel and of its multiplexer together. */
  numSubscribers(vchanId = -1): number {
    const { i32 } = this.#arena, counts = (this.#ccb.address + Ccb.numSubs) >>> 2;
    return vchanId === -1 ? i32[counts] : i32[counts] + i32[counts + vchanId + 1];
  }

  /** Whether a reliable publisher has sent the activation message. */
  isActivated(vchanId = -1): boolean {
    return this.#isSet(Ccb.activationTracker, vchanId + 1);
  }

  /** Whether publishers deliver to a subscriber. */
  hasSubscriber(id: number): boolean {
    return this.#isSet(Ccb.subscribers, id);
  }

  /** All subscribers that publishers deliver to, in order. */
  *subscribers(): Generator<number> {
    const { u8 } = this.#arena, bits = this.#ccb.address + Ccb.subscribers + Bitset.words;
    for (let first = 0; first < Limit.users; first += 8) {
      if (u8[bits + (first >> 3)] === 0) continue;
      for (let id = first; id < first + 8; id++) if (this.hasSubscriber(id)) yield id;
    }
  }

  /** The virtual channel of a subscriber. */
  subscriberVchan(id: number): number {
    return this.#arena.view.getInt16(this.#ccb.address + Ccb.subscriberVchans + 2 * id, true);
  }

  /** Slots assigned to a message buffer. */
  bufferRefs(index: number): number {
    return this.#arena.i32[(this.#bcb.address + Bcb.refs + 4 * index) >>> 2];
  }

  /** Full size of a message buffer. */
  bufferBytes(index: number): number {
    return this.#arena.u64(this.#bcb.address + Bcb.sizes + 8 * index);
  }

  setBufferBytes(index: number, bytes: number): void {
    this.#arena.view.setBigUint64(this.#bcb.address + Bcb.sizes + 8 * index, BigInt(bytes), true);
  }

  /** Address of a doorbell; 0 where the channel has none, because a server of the reference made it. */
  doorbell(kind: "subscribers" | "publishers"): number {
    return this.#bcb.byteLength >= Doorbells.bytes ? this.#bcb.address + Doorbells[kind] : 0;
  }

  [Symbol.dispose](): void {
    this.#release();
    this.ccbFd.close();
    this.bcbFd.close();
  }

  #isSet(bitset: number, bit: number): boolean {
    return (this.#arena.u8[this.#ccb.address + bitset + Bitset.words + (bit >> 3)] & 1 << (bit & 7)) !== 0;
  }

  #release(): void {
    this.#ccb.unmap();
    this.#bcb.unmap();
    this.#arena.free(this.struct, ChannelStruct.bytes);
  }

  #header(): { version: number; numSlots: number } {
    const { i32, u32 } = this.#arena, ccb = this.#ccb.address;
    return { version: u32[(ccb + Ccb.version) >>> 2], numSlots: i32[(ccb + Ccb.numSlots) >>> 2] };
  }

  /** Fills in the core's struct. */
  #describe(): void {
    const { u32 } = this.#arena, ccb = this.#ccb.address, offsets = this.#offsets;
    const set = (field: number, value: number) => u32[(this.struct + field) >>> 2] = value;
    set(ChannelStruct.ccb, ccb);
    set(ChannelStruct.bcb, this.#bcb.address);
    set(ChannelStruct.counters, this.counters.address);
    set(ChannelStruct.numSlots, this.numSlots);
    set(ChannelStruct.slotWords, Math.ceil(this.numSlots / 64));
    set(ChannelStruct.availableStride, offsets.availableStride);
    set(ChannelStruct.slots, ccb + Ccb.slots);
    set(ChannelStruct.retired, ccb + offsets.retired + Bitset.words);
    set(ChannelStruct.free, ccb + offsets.free + Bitset.words);
    set(ChannelStruct.available, ccb + offsets.available);
    set(ChannelStruct.queueIndex, ccb + offsets.queueIndex);
    set(ChannelStruct.queueArena, ccb + offsets.queueArena);
    set(ChannelStruct.queueArenaBytes, this.shape.queueArenaBytes);
  }

  #initialize(): void {
    const { u8, view } = this.#arena, ccb = this.#ccb.address;
    if (this.#offsets.queueArena > IMAGE_BYTES_MAX) fillIn(view, ccb, this.shape, this.#offsets);
    else u8.set(initialImage(this.shape, this.#offsets), ccb);
    encoder.encodeInto(
      this.shape.channelName,
      u8.subarray(ccb + Ccb.name, ccb + Ccb.name + Ccb.nameBytes - 1),
    );
  }
}

/** Control blocks up to this size are copied from an image; larger ones are too rare to keep one. */
const IMAGE_BYTES_MAX = 256 * 1024;

let image: { readonly numSlots: number; readonly hasQueues: boolean; readonly bytes: Uint8Array } | undefined;

/** A new control block, up to its queue arena, without a name. Channels are often made many of a shape. */
function initialImage(shape: ControlBlockShape, offsets: ControlBlockOffsets): Uint8Array {
  const { numSlots } = shape, hasQueues = shape.queueArenaBytes > 0;
  if (image?.numSlots !== numSlots || image.hasQueues !== hasQueues) {
    const bytes = new Uint8Array(offsets.queueArena);
    fillIn(new DataView(bytes.buffer), 0, shape, offsets);
    image = { numSlots, hasQueues, bytes };
  }
  return image.bytes;
}

/** Writes the initial values of a control block into zeroed memory (section 4.10). */
function fillIn(view: DataView, ccb: number, shape: ControlBlockShape, offsets: ControlBlockOffsets): void {
  const { numSlots, queueArenaBytes } = shape;
  const u32 = (offset: number, value: number) => view.setUint32(ccb + offset, value, true);
  u32(Ccb.numSlots, numSlots);
  u32(Ccb.queueSize, numSlots > 0 && queueArenaBytes > 0 ? DEFAULT_QUEUE_CAPACITY : 0);
  u32(Ccb.version, CONTROL_BLOCK_VERSION);
  u32(Ccb.subscribers + Bitset.numBits, Limit.users);
  for (let i = 0; i < Limit.users; i++) u32(Ccb.ordinals + 8 * i, 1);
  for (let id = 0; id < numSlots; id++) fillInSlot(view, ccb + Ccb.slots + Slot.bytes * id, id);
  u32(offsets.retired, numSlots);
  u32(offsets.free, numSlots);
  for (let id = 0; id < Limit.users; id++) u32(offsets.available + offsets.availableStride * id, numSlots);
  for (let id = 0; id < numSlots; id++) {
    const at = ccb + offsets.free + Bitset.words + (id >> 3);
    view.setUint8(at, view.getUint8(at) | 1 << (id & 7));
  }
  for (let i = 0; i < 2 * Limit.users; i++) u32(offsets.queueIndex + QueueIndex.offsets + 4 * i, 0xffff_ffff);
}

function fillInSlot(view: DataView, slot: number, id: number): void {
  view.setInt32(slot + Slot.id, id, true);
  view.setInt16(slot + Slot.bufferIndex, -1, true);
  view.setInt16(slot + Slot.vchan, -1, true);
  view.setUint32(slot + Slot.owners + Bitset.numBits, Limit.users, true);
  view.setInt32(slot + Slot.bridgedSlot, -1, true);
}

/** Maps a block; as much of it as there is between `bytes` and `bytesMax`, in one piece or the other. */
function mapBlock(fd: Fd, bytes: number, what: string, bytesMax = bytes): ArenaMapping {
  const there = fd.stat().bytes;
  if (there < bytes) throw new ControlBlockError(`Cannot use the ${what}: it has ${there} bytes of ${bytes}`);
  return arena().map(fd, there < bytesMax ? bytes : bytesMax);
}
