/**
 * Reading control blocks without touching them: copied, beside their users, whatever state they are in. A copy cannot
 * kill this process when somebody shortens the memory, and it does not change while it is looked at.
 */

import { SystemError } from "../ffi/errno.ts";
import type { Fd } from "../ffi/fd.ts";
import type { ChannelTotals } from "./control_blocks.ts";
import {
  Bcb,
  Bitset,
  Ccb,
  CONTROL_BLOCK_VERSION,
  controlBlockOffsets,
  Limit,
  Refs,
  Scb,
  Slot,
  SlotFlag,
} from "./layout.ts";

/** What a slot is doing: owned by a publisher, held by subscribers, waiting to be read, read by all, or empty. */
export type SlotState = "owned" | "held" | "published" | "retired" | "free";

/** A slot at some moment. */
export interface SlotReport {
  readonly id: number;
  readonly state: SlotState;
  /** The publisher that owns it; null where none does. */
  readonly owner: number | null;
  /** Ids of the subscribers that hold its message. */
  readonly holders: readonly number[];
  /** 0 where it has no message. */
  readonly ordinal: number;
  readonly messageSize: number;
  /** CLOCK_MONOTONIC at publication, to the precision of a double; 0 where it has no message. */
  readonly timestampNs: number;
  /** -1 for none. */
  readonly bufferIndex: number;
  readonly vchanId: number;
  readonly activation: boolean;
}

/** A message buffer. */
export interface BufferReport {
  readonly bytes: number;
  /** Slots assigned to it. */
  readonly slots: number;
}

/** A control block at some moment. Other processes go on writing to it, so that parts may be of different moments. */
export interface ControlBlockReport {
  readonly version: number;
  readonly numSlots: number;
  readonly totals: ChannelTotals;
  /** User ids of the subscribers that publishers deliver to. */
  readonly subscribers: readonly number[];
  /** Messages that wait for a subscriber, by its user id. */
  readonly unread: ReadonlyMap<number, number>;
  readonly slots: readonly SlotReport[];
  readonly buffers: readonly BufferReport[];
  /** What is wrong with it, in words; then parts may be missing above. */
  readonly problems: readonly string[];
}

/** Counters of a channel in the system control block. */
export interface CounterReport {
  readonly numPubUpdates: number;
  readonly numSubUpdates: number;
  readonly numPubs: number;
  readonly numReliablePubs: number;
  readonly numSubs: number;
  readonly numReliableSubs: number;
  readonly numResizes: number;
}

/**
 * Reads the counters of all channels, indexed by channel id.
 *
 * @throws {RangeError} If the memory is shorter than a system control block.
 */
export function readCounters(scbFd: Fd): CounterReport[] {
  const { view, bytes } = copyOf(scbFd, 0, Scb.bytes);
  if (bytes < Scb.bytes) throw new RangeError(`Cannot read a system control block: it has ${bytes} bytes`);
  return Array.from({ length: Limit.channels }, (_, id) => {
    const field = (offset: number) => view.getUint16(id * Scb.stride + offset, true);
    return {
      numPubUpdates: field(Scb.numPubUpdates),
      numSubUpdates: field(Scb.numSubUpdates),
      numPubs: field(Scb.numPubs),
      numReliablePubs: field(Scb.numReliablePubs),
      numSubs: field(Scb.numSubs),
      numReliableSubs: field(Scb.numReliableSubs),
      numResizes: field(Scb.numResizes),
    };
  });
}

/** The system control block as it is now, to be compared with how it was. null where it cannot be read. */
export function copyCounters(scbFd: Fd): Uint8Array | null {
  const copy = tryToCopy(scbFd, 0, Scb.bytes, "system control block", []);
  return copy === null ? null : new Uint8Array(copy.view.buffer);
}

/** What went through a channel; null where its control block cannot be read. Much cheaper than a whole report. */
export function readTotals(ccbFd: Fd): ChannelTotals | null {
  const copy = tryToCopy(ccbFd, Ccb.totalBytes, Ccb.totalDrops + 4 - Ccb.totalBytes, "control block", []);
  if (copy === null) return null;
  const at = (offset: number) => offset - Ccb.totalBytes;
  return {
    bytes: readU64(copy.view, at(Ccb.totalBytes)),
    messages: readU64(copy.view, at(Ccb.totalMessages)),
    maxMessageSize: copy.view.getUint32(at(Ccb.maxMessageSize), true),
    drops: copy.view.getUint32(at(Ccb.totalDrops), true),
  };
}

/** How many ordinals a channel, or a virtual one of a multiplexer, has given out. null where that cannot be read. */
export function readOrdinalCount(ccbFd: Fd, vchanId: number): number | null {
  if (vchanId < -1 || vchanId >= Limit.virtualChannels) return null;
  const copy = tryToCopy(ccbFd, Ccb.ordinals + 8 * (vchanId + 1), 8, "control block", []);
  return copy === null ? null : Math.max(0, readU64(copy.view, 0) - 1);
}

/** The slots of a channel now, without any check; none where they cannot be read. */
export function readSlotArray(ccbFd: Fd, numSlots: number): SlotReport[] {
  const count = Math.max(0, Math.min(numSlots, SLOTS_MAX));
  const copy = count === 0 ? null : tryToCopy(ccbFd, Ccb.slots, Slot.bytes * count, "array of slots", []);
  if (copy === null) return [];
  return Array.from({ length: count }, (_, id) => readSlot(copy.view, id, false, false, []));
}

/** Whether a slot still has the message that it had. */
export function stillHas(ccbFd: Fd, slotId: number, ordinal: number): boolean {
  const copy = tryToCopy(ccbFd, Ccb.slots + Slot.bytes * slotId, Slot.messageSize, "slot", []);
  if (copy === null || readU64(copy.view, Slot.ordinal) !== ordinal) return false;
  return readRefs(copy.view, Slot.refs).owner === null;
}

/** The message buffers of a channel now. */
export function readBufferList(ccbFd: Fd, bcbFd: Fd): BufferReport[] {
  const copy = tryToCopy(ccbFd, Ccb.numBuffers, 4, "control block", []);
  return copy === null ? [] : readBuffers(bcbFd, copy.view.getInt32(0, true), []);
}

/** Slots that are looked at. A channel may have more, but nobody reads so long a report. */
const SLOTS_MAX = 65536;
/** A slot that changes while it is copied contradicts itself; damage does so every time. */
const ATTEMPTS = 3;

/**
 * Reads the control blocks of a channel. Never throws for what is in them: what does not fit is a problem in the
 * report.
 *
 * @param numSlots How many slots the block is said to have.
 */
export function readControlBlock(ccbFd: Fd, bcbFd: Fd, numSlots: number): ControlBlockReport {
  let report = attemptToRead(ccbFd, bcbFd, numSlots);
  for (let i = 1; i < ATTEMPTS && report.problems.length > 0; i++) {
    report = attemptToRead(ccbFd, bcbFd, numSlots);
  }
  return report;
}

/** Most control blocks have all that is looked at in so many bytes. */
const HEAD_BYTES = 64 * 1024;
/** Most channels have no users beyond this id, whose bitsets are copied with what is before them. */
const USERS_IN_HEAD = 64;
const ccbHead = new Uint8Array(HEAD_BYTES), bcbHead = new Uint8Array(Bcb.bytes);

/** A block whose beginning was copied at once, into memory that the next one copies over: there are thousands. */
class Block {
  readonly #wanted: number;
  /** How much of it is in `head`. */
  readonly #stored: number;

  /** @param wanted How much of the beginning is going to be looked at. */
  constructor(private readonly fd: Fd, private readonly head: Uint8Array<ArrayBuffer>, wanted: number) {
    this.#wanted = Math.min(wanted, head.length);
    this.#stored = this.#store();
  }

  #store(): number {
    try {
      return this.fd.readAt(0, this.head.subarray(0, this.#wanted));
    } catch (error) {
      // Whoever needs a part of it says so.
      if (error instanceof SystemError) return 0;
      throw error;
    }
  }

  /** How long it is. */
  get bytes(): number {
    return this.#stored < this.#wanted ? this.#stored : this.fd.stat().bytes;
  }

  /** A part, to be used before there is another block; null, and a problem, where the block is too short for it. */
  part(offset: number, byteLength: number, what: string, problems: string[]): Copy | null {
    if (offset + byteLength > this.#stored) return tryToCopy(this.fd, offset, byteLength, what, problems);
    return { view: new DataView(this.head.buffer, offset, byteLength), bytes: byteLength };
  }
}

function attemptToRead(ccbFd: Fd, bcbFd: Fd, numSlots: number): ControlBlockReport {
  const problems: string[] = [];
  const slotsRead = Math.max(0, Math.min(numSlots, SLOTS_MAX));
  const pools = controlBlockOffsets(Math.max(0, numSlots), 0);
  const ccb = new Block(ccbFd, ccbHead, pools.available + pools.availableStride * USERS_IN_HEAD);
  const fixed = ccb.part(0, Ccb.slots, "control block", problems);
  if (fixed === null) return unreadable(problems);
  const { view } = fixed;
  const version = view.getUint32(Ccb.version, true);
  const told = view.getInt32(Ccb.numSlots, true);
  if (version !== CONTROL_BLOCK_VERSION) {
    problems.push(`version ${version} instead of ${CONTROL_BLOCK_VERSION}`);
  }
  if (told !== numSlots) problems.push(`${told} slots instead of ${numSlots}`);
  if (numSlots > SLOTS_MAX) problems.push(`${numSlots} slots, of which only ${SLOTS_MAX} are looked at`);
  const { bytes } = ccb;
  if (bytes < pools.bytes) problems.push(`${bytes} bytes instead of ${pools.bytes} or more`);
  checkBits(view, Ccb.subscribers, Limit.users, problems, "bitset of subscribers");
  const subscribers = readBits(view, Ccb.subscribers, Limit.users);
  const buffers = readBuffers(bcbFd, view.getInt32(Ccb.numBuffers, true), problems);
  const whole = bytes >= pools.bytes;
  return {
    version,
    numSlots: told,
    totals: {
      bytes: readU64(view, Ccb.totalBytes),
      messages: readU64(view, Ccb.totalMessages),
      maxMessageSize: view.getUint32(Ccb.maxMessageSize, true),
      drops: view.getUint32(Ccb.totalDrops, true),
    },
    subscribers,
    unread: new Map(whole ? subscribers.map((id) => [id, readUnread(ccb, numSlots, id, problems)]) : []),
    slots: whole ? readSlots(ccb, numSlots, slotsRead, buffers, problems) : [],
    buffers,
    problems,
  };
}

function unreadable(problems: readonly string[]): ControlBlockReport {
  return {
    version: 0,
    numSlots: 0,
    totals: { bytes: 0, messages: 0, maxMessageSize: 0, drops: 0 },
    subscribers: [],
    unread: new Map(),
    slots: [],
    buffers: [],
    problems,
  };
}

/** A part of shared memory as it was when it was copied; zeroes where the memory was shorter. */
interface Copy {
  readonly view: DataView<ArrayBuffer>;
  /** How many bytes of it there were. */
  readonly bytes: number;
}

function copyOf(fd: Fd, offset: number, byteLength: number): Copy {
  const into = new Uint8Array(byteLength);
  return { bytes: fd.readAt(offset, into), view: new DataView(into.buffer) };
}

/** A copy; null, and a problem, where the memory is too short or no memory at all. */
function tryToCopy(
  fd: Fd,
  offset: number,
  byteLength: number,
  what: string,
  problems: string[],
): Copy | null {
  try {
    const copy = copyOf(fd, offset, byteLength);
    if (copy.bytes === byteLength) return copy;
    problems.push(`the ${what} has ${offset + copy.bytes} bytes instead of ${offset + byteLength} or more`);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    problems.push(`the ${what} cannot be read (${error.code})`);
  }
  return null;
}

function readU64(view: DataView, offset: number): number {
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32;
}

/** The owner and the counts of a refs word, without the bigints of `decodeRefs`: there are a thousand in a report. */
function readRefs(
  view: DataView,
  offset: number,
): { owner: number | null; refs: number; reliableRefs: number } {
  const low = view.getUint32(offset, true), isOwned = view.getInt32(offset + 4, true) < 0;
  const refs = low & Refs.countMask;
  return { owner: isOwned ? refs : null, refs, reliableRefs: low >>> Refs.reliableShift & Refs.countMask };
}

const NO_BITS: readonly number[] = [];

/** The bits that are set in a bitset object. */
function readBits(view: DataView, bitset: number, numBits: number): readonly number[] {
  let set: number[] | undefined;
  for (let from = 0; from < numBits; from += 32) {
    let word = view.getUint32(bitset + Bitset.words + (from >> 3), true);
    for (; word !== 0; word &= word - 1) (set ??= []).push(from + 31 - Math.clz32(word & -word));
  }
  return set ?? NO_BITS;
}

/** @param of The one that it is of, where there are many. */
function checkBits(
  view: DataView,
  bitset: number,
  numBits: number,
  problems: string[],
  what: string,
  of?: number,
): void {
  const told = readU64(view, bitset + Bitset.numBits);
  if (told === numBits) return;
  problems.push(`the ${what}${of === undefined ? "" : ` ${of}`} has ${told} bits instead of ${numBits}`);
}

function hasBit(view: DataView, bitset: number, bit: number): boolean {
  return (view.getUint32(bitset + Bitset.words + (bit >>> 5 << 2), true) >>> (bit & 31) & 1) !== 0;
}

function readUnread(ccb: Block, numSlots: number, id: number, problems: string[]): number {
  const { available, availableStride } = controlBlockOffsets(numSlots, 0);
  const what = "bitset of slots that wait for subscriber";
  const copy = ccb.part(available + availableStride * id, availableStride, what, problems);
  if (copy === null) return 0;
  checkBits(copy.view, 0, numSlots, problems, what, id);
  return readBits(copy.view, 0, numSlots).length;
}

function readSlots(
  ccb: Block,
  numSlots: number,
  slotsRead: number,
  buffers: readonly BufferReport[],
  problems: string[],
): SlotReport[] {
  if (numSlots <= 0) return [];
  const offsets = controlBlockOffsets(numSlots, 0);
  const pool = (offset: number, what: string) => {
    const copy = ccb.part(offset, offsets.availableStride, what, problems);
    if (copy !== null) checkBits(copy.view, 0, numSlots, problems, what);
    return (id: number) => copy !== null && hasBit(copy.view, 0, id);
  };
  const retired = pool(offsets.retired, "bitset of retired slots");
  const free = pool(offsets.free, "bitset of free slots");
  const copy = ccb.part(Ccb.slots, Slot.bytes * slotsRead, "array of slots", problems);
  if (copy === null) return [];
  return Array.from({ length: slotsRead }, (_, id) => {
    const slot = readSlot(copy.view, id, retired(id), free(id), problems);
    checkSlot(slot, numSlots, buffers, problems);
    return slot;
  });
}

function readSlot(
  view: DataView,
  id: number,
  retired: boolean,
  free: boolean,
  problems: string[],
): SlotReport {
  const slot = Slot.bytes * id;
  const refs = readRefs(view, slot + Slot.refs);
  const ordinal = readU64(view, slot + Slot.ordinal);
  const told = view.getInt32(slot + Slot.id, true);
  if (told !== id) problems.push(`slot ${id} calls itself ${told}`);
  if (refs.owner === null && refs.reliableRefs > refs.refs) {
    problems.push(`slot ${id} has ${refs.reliableRefs} reliable references among ${refs.refs}`);
  }
  checkBits(view, slot + Slot.owners, Limit.users, problems, "bitset of holders of slot", id);
  const idle = retired ? "retired" : free || ordinal === 0 ? "free" : "published";
  return {
    id,
    state: refs.owner !== null ? "owned" : refs.refs > 0 ? "held" : idle,
    owner: refs.owner,
    holders: readBits(view, slot + Slot.owners, Limit.users),
    ordinal,
    messageSize: readU64(view, slot + Slot.messageSize),
    timestampNs: readU64(view, slot + Slot.timestamp),
    bufferIndex: view.getInt16(slot + Slot.bufferIndex, true),
    vchanId: view.getInt16(slot + Slot.vchan, true),
    activation: (view.getUint32(slot + Slot.flags, true) & SlotFlag.activation) !== 0,
  };
}

/** A slot that a publisher owns is being written to: only the others have to make sense. */
function checkSlot(
  { id, state, ordinal, messageSize, bufferIndex }: SlotReport,
  numSlots: number,
  buffers: readonly BufferReport[],
  problems: string[],
): void {
  if (state === "owned" || ordinal === 0) return;
  const buffer = buffers[bufferIndex];
  if (buffer === undefined) problems.push(`slot ${id} is in buffer ${bufferIndex} of ${buffers.length}`);
  else if (buffer.bytes > 0 && messageSize > buffer.bytes / numSlots) {
    problems.push(`slot ${id} has a message of ${messageSize} bytes, more than fit`);
  }
}

function readBuffers(bcbFd: Fd, numBuffers: number, problems: string[]): BufferReport[] {
  if (numBuffers < 0 || numBuffers > Limit.buffers) problems.push(`${numBuffers} message buffers`);
  const copy = new Block(bcbFd, bcbHead, Bcb.bytes).part(0, Bcb.bytes, "buffer control block", problems);
  if (copy === null) return [];
  return Array.from({ length: Math.min(Math.max(numBuffers, 0), Limit.buffers) }, (_, index) => ({
    bytes: readU64(copy.view, Bcb.sizes + 8 * index),
    slots: copy.view.getInt32(Bcb.refs + 4 * index, true),
  }));
}
