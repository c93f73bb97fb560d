/**
 * Reading control blocks without touching them: mapped read-only, beside their users, whatever state they are in.
 */

import type { Fd } from "../ffi/fd.ts";
import { Mapping } from "../ffi/mapping.ts";
import type { ChannelTotals } from "./control_blocks.ts";
import {
  Bcb,
  Bitset,
  Ccb,
  CONTROL_BLOCK_VERSION,
  controlBlockOffsets,
  decodeRefs,
  Limit,
  Scb,
  Slot,
  SlotFlag,
} from "./layout.ts";

/** What a slot is doing: owned by a publisher, read by subscribers, waiting to be read or read by all, or never used. */
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
  /** As much of the channel's name as the block has. */
  readonly name: string;
  readonly version: number;
  readonly numSlots: number;
  readonly totals: ChannelTotals;
  /** User ids of the subscribers that publishers deliver to. */
  readonly subscribers: readonly number[];
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
  using mapping = Mapping.map(scbFd, Scb.bytes, { writable: false });
  const { view } = mapping;
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

/**
 * Reads the control blocks of a channel. Never throws for what is in them: what does not fit is a problem in the
 * report.
 *
 * @param numSlots How many slots the block is said to have.
 */
export function readControlBlock(ccbFd: Fd, bcbFd: Fd, numSlots: number): ControlBlockReport {
  const problems: string[] = [];
  const { bytes } = ccbFd.stat();
  if (bytes < Ccb.slots) {
    problems.push(`the control block has ${bytes} bytes: too few for any`);
    const totals = { bytes: 0, messages: 0, maxMessageSize: 0, drops: 0 };
    return { name: "", version: 0, numSlots: 0, totals, subscribers: [], slots: [], buffers: [], problems };
  }
  using mapping = Mapping.map(ccbFd, bytes, { writable: false });
  const { view } = mapping;
  const version = view.getUint32(Ccb.version, true);
  if (version !== CONTROL_BLOCK_VERSION) {
    problems.push(`version ${version} instead of ${CONTROL_BLOCK_VERSION}`);
  }
  const told = view.getInt32(Ccb.numSlots, true);
  if (told !== numSlots) problems.push(`${told} slots instead of ${numSlots}`);
  const least = controlBlockOffsets(numSlots, 0).bytes;
  if (bytes < least) problems.push(`${bytes} bytes instead of ${least} or more`);
  const whole = bytes >= least;
  return {
    name: readName(mapping.bytes),
    version,
    numSlots: told,
    totals: {
      bytes: readU64(view, Ccb.totalBytes),
      messages: readU64(view, Ccb.totalMessages),
      maxMessageSize: view.getUint32(Ccb.maxMessageSize, true),
      drops: view.getUint32(Ccb.totalDrops, true),
    },
    subscribers: readBits(view, Ccb.subscribers + Bitset.words, Limit.users),
    slots: whole ? readSlots(view, numSlots) : [],
    buffers: readBuffers(bcbFd, view.getInt32(Ccb.numBuffers, true), problems),
    problems,
  };
}

function readName(bytes: Uint8Array): string {
  const name = bytes.subarray(Ccb.name, Ccb.name + Ccb.nameBytes);
  const end = name.indexOf(0);
  return new TextDecoder().decode(name.subarray(0, end < 0 ? name.length : end));
}

function readU64(view: DataView, offset: number): number {
  return Number(view.getBigUint64(offset, true));
}

function readBits(view: DataView, words: number, numBits: number): number[] {
  const set: number[] = [];
  for (let from = 0; from < numBits; from += 8) {
    const byte = view.getUint8(words + (from >> 3));
    for (let bit = from; byte >> (bit - from) !== 0; bit++) if (byte >> (bit - from) & 1) set.push(bit);
  }
  return set;
}

function readSlots(view: DataView, numSlots: number): SlotReport[] {
  const offsets = controlBlockOffsets(numSlots, 0);
  const retired = new Set(readBits(view, offsets.retired + Bitset.words, numSlots));
  const free = new Set(readBits(view, offsets.free + Bitset.words, numSlots));
  return Array.from({ length: numSlots }, (_, id) => {
    const slot = Ccb.slots + Slot.bytes * id;
    const refs = decodeRefs(view.getBigUint64(slot + Slot.refs, true));
    const pool = retired.has(id) ? "retired" : free.has(id) ? "free" : "published";
    return {
      id,
      state: refs.owner !== null ? "owned" : refs.refs > 0 ? "held" : pool,
      owner: refs.owner,
      holders: readBits(view, slot + Slot.owners + Bitset.words, Limit.users),
      ordinal: readU64(view, slot + Slot.ordinal),
      messageSize: readU64(view, slot + Slot.messageSize),
      bufferIndex: view.getInt16(slot + Slot.bufferIndex, true),
      vchanId: view.getInt16(slot + Slot.vchan, true),
      activation: (view.getUint32(slot + Slot.flags, true) & SlotFlag.activation) !== 0,
    };
  });
}

function readBuffers(bcbFd: Fd, numBuffers: number, problems: string[]): BufferReport[] {
  const { bytes } = bcbFd.stat();
  if (bytes < Bcb.bytes) problems.push(`the buffer control block has ${bytes} bytes instead of ${Bcb.bytes}`);
  if (numBuffers < 0 || numBuffers > Limit.buffers) problems.push(`${numBuffers} message buffers`);
  if (bytes < Bcb.bytes) return [];
  using mapping = Mapping.map(bcbFd, Bcb.bytes, { writable: false });
  const { view } = mapping;
  return Array.from({ length: Math.min(Math.max(numBuffers, 0), Limit.buffers) }, (_, index) => ({
    bytes: readU64(view, Bcb.sizes + 8 * index),
    slots: view.getInt32(Bcb.refs + 4 * index, true),
  }));
}
