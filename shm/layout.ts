/**
 * Offsets and sizes of everything in shared memory, in bytes: the one table (specification, section 4).
 *
 * All integers are little-endian. `scripts/build_core.ts` generates the constants of the WebAssembly core from
 * the tables of this file, so that there is no second place to get one wrong.
 */

/** Limits of the contract (specification, section 9.1). */
export const Limit = {
  /** Channels of a server. */
  channels: 1024,
  /** Publishers and subscribers of a channel or multiplexer together; also the bits of an id bitset. */
  users: 1024,
  /** Virtual channels of a multiplexer: ids 0 to 1022, as 1023 stands for -1. */
  virtualChannels: 1023,
  /** Message buffers of a channel, one per growth. */
  buffers: 1024,
  /** Entries of a subscriber queue. */
  queueEntries: 1024,
  /** A channel control block. */
  controlBlockBytes: 1024 * 1024 * 1024,
  /** A slot: its size crosses the wire as an int32 and is a multiple of 64. */
  slotBytes: 0x7fff_ffc0,
} as const;

/** Version of the channel control block that this library reads and writes. */
export const CONTROL_BLOCK_VERSION = 4;

/** System control block: the counters of all channels (section 4.1). */
export const Scb = {
  bytes: 14336,
  stride: 14,
  numPubUpdates: 0,
  numSubUpdates: 2,
  numPubs: 4,
  numReliablePubs: 6,
  numSubs: 8,
  numReliableSubs: 10,
  numResizes: 12,
} as const;

/** Buffer control block (section 4.2): per buffer the slots assigned to it and its full size. */
export const Bcb = { bytes: 12288, refs: 0, sizes: 4096 } as const;

/**
 * A doorbell: which users of one kind sleep, so that whoever has something for them writes an eventfd only then
 * (docs/extensions.md). Where our server made the channel, two of them are behind what the reference knows of the BCB.
 */
export const Doorbell = {
  bytes: 4160,
  /** u32: `DoorbellState`. */
  state: 0,
  /** u32: no user from this id on has ever slept. */
  end: 4,
  /** u32 per user id: `DoorbellWord`. */
  words: 64,
} as const;

/** A doorbell's state: whether somebody may be asleep, and how often somebody fell asleep. */
export const DoorbellState = { anyone: 1, step: 2 } as const;

/** A user's word: whether it is asleep, whether it always wants to be told, and how often it fell asleep. */
export const DoorbellWord = { asleep: 1, always: 2, sleeps: 3, step: 4 } as const;

/** The doorbells of a channel: that of its subscribers, that of its reliable publishers, and the BCB's size with both. */
export const Doorbells = { subscribers: 12288, publishers: 16448, bytes: 20608 } as const;

/** Bitset object (section 4.3). `idBytes` is the size of one for user ids. */
export const Bitset = { numBits: 0, words: 8, idBytes: 136, idWords: 16 } as const;

/** Channel control block, fixed part (section 4.4). */
export const Ccb = {
  name: 0,
  nameBytes: 64,
  numSlots: 64,
  queueSize: 68,
  version: 72,
  ordinals: 80,
  activationTracker: 8272,
  bufferIndex: 8408,
  numBuffers: 8412,
  subscribers: 8416,
  subscriberVchans: 8552,
  numSubs: 10600,
  totalBytes: 14696,
  totalMessages: 14704,
  maxMessageSize: 14712,
  totalDrops: 14716,
  freeSlotsExhausted: 14720,
  slots: 14728,
} as const;

/** Message slot (section 4.5). */
export const Slot = {
  bytes: 184,
  refs: 0,
  ordinal: 8,
  messageSize: 16,
  id: 24,
  bufferIndex: 28,
  vchan: 30,
  owners: 32,
  timestamp: 168,
  flags: 176,
  bridgedSlot: 180,
} as const;

/** Flags of a message slot. */
export const SlotFlag = { seen: 1, activation: 2, seenByReliable: 4 } as const;

/**
 * The bits of a slot's flags that mean nothing to the reference. Our publishers put the low 23 bits of the ordinal
 * there, and the highest bit, when every subscriber has its bit of that message.
 */
export const SlotMark = { announced: 0x8000_0000, ordinalShift: 8, flags: 0xff } as const;

/** Queue index: where each subscriber's queue is, and which publishers are among the queues (section 4.5). */
export const QueueIndex = {
  bytes: 12296,
  paddedBytes: 12352,
  nextOffset: 0,
  offsets: 8,
  activePublishers: 8200,
} as const;

/** Header of a block in the queue arena. The queue follows it. */
export const QueueBlock = {
  bytes: 192,
  blockSize: 0,
  state: 8,
  waitingPublishers: 16,
  minimumBytes: 256,
} as const;

/** States of a block in the queue arena. */
export const QueueBlockState = { allocated: 0, retired: 1, free: 2 } as const;

/** Subscriber queue. */
export const Queue = {
  bytes: 32,
  capacity: 0,
  head: 8,
  tail: 16,
  overflowCount: 24,
  insertionFailed: 28,
  dropOldest: 29,
} as const;

/** Entry of a subscriber queue. */
export const QueueEntry = { bytes: 24, sequence: 0, ordinal: 8, slot: 16 } as const;

/** Capacity of a subscriber's queue where the subscriber names none and the channel has a queue arena. */
export const DEFAULT_QUEUE_CAPACITY = 16;

/** Message prefix, in front of each payload (section 4.7). Checksum and metadata follow the fixed part. */
export const Prefix = {
  fixedBytes: 48,
  padding: 0,
  slot: 4,
  messageSize: 8,
  ordinal: 16,
  timestamp: 24,
  flags: 32,
  vchan: 40,
  checksumBytes: 44,
  metadataBytes: 46,
  checksum: 48,
} as const;

/** Flags of a message prefix. */
export const PrefixFlag = { activation: 1, bridged: 2, checksum: 4, crossMachine: 8 } as const;

/** The refs word of a slot: positions of its fields (section 4.6). */
export const Refs = {
  countBits: 10,
  countMask: 0x3ff,
  reliableShift: 10,
  bothCountsMask: 0xfffff,
  retiredShift: 20,
  vchanShift: 30,
  vchanMask: 0x3ff,
  ordinalShift: 40,
  ordinalMask: 0x7fffff,
} as const;

/** What a refs word says. */
export interface RefsFields {
  /** The publisher that owns the slot; null where none does, and then the other fields hold. */
  readonly owner: number | null;
  readonly refs: number;
  readonly reliableRefs: number;
  /** Releases since publication. */
  readonly retired: number;
  /** -1 outside of multiplexers. */
  readonly vchanId: number;
  /** The low 23 bits of the ordinal. */
  readonly ordinal: number;
}

const OWNED = 1n << 63n;

/** The refs word of a slot that nobody holds (section 4.6). */
export function buildRefs(ordinal: bigint, vchanId: number, retired: number): bigint {
  const vchan = ordinal === 0n ? 0n : BigInt(vchanId & Refs.vchanMask) << BigInt(Refs.vchanShift);
  return (ordinal & BigInt(Refs.ordinalMask)) << BigInt(Refs.ordinalShift) | vchan |
    BigInt(retired & Refs.countMask) << BigInt(Refs.retiredShift);
}

/** The refs word of a slot that a publisher owns. */
export function ownedRefs(publisherId: number): bigint {
  return OWNED | BigInt(publisherId);
}

/** Takes a refs word apart. */
export function decodeRefs(word: bigint): RefsFields {
  const field = (shift: number, mask: number) => Number(word >> BigInt(shift) & BigInt(mask));
  const vchan = field(Refs.vchanShift, Refs.vchanMask);
  return {
    owner: (word & OWNED) === 0n ? null : field(0, Refs.countMask),
    refs: field(0, Refs.countMask),
    reliableRefs: field(Refs.reliableShift, Refs.countMask),
    retired: field(Refs.retiredShift, Refs.countMask),
    vchanId: vchan === Refs.vchanMask ? -1 : vchan,
    ordinal: field(Refs.ordinalShift, Refs.ordinalMask),
  };
}

/** Rounds up to a multiple of 64. */
export function align64(bytes: number): number {
  return Math.ceil(bytes / 64) * 64;
}

/** Size of a bitset object. */
export function bitsetBytes(numBits: number): number {
  return Bitset.words + 8 * Math.ceil(numBits / 64);
}

/** Where the parts of a channel control block are that depend on its number of slots (section 4.5). */
export interface ControlBlockOffsets {
  readonly retired: number;
  readonly free: number;
  /** The available-slots bitset of user id 0; the others follow at `availableStride`. */
  readonly available: number;
  readonly availableStride: number;
  readonly queueIndex: number;
  readonly queueArena: number;
  /** Size of the whole block. */
  readonly bytes: number;
}

/** Lays out a channel control block. */
export function controlBlockOffsets(numSlots: number, queueArenaBytes: number): ControlBlockOffsets {
  const stride = bitsetBytes(numSlots);
  const retired = align64(Ccb.slots + Slot.bytes * numSlots);
  const free = retired + align64(stride);
  const available = free + align64(stride);
  const queueIndex = available + stride * Limit.users;
  const queueArena = queueIndex + QueueIndex.paddedBytes;
  return {
    retired,
    free,
    available,
    availableStride: stride,
    queueIndex,
    queueArena,
    bytes: queueArena + queueArenaBytes,
  };
}

/** Size of a channel control block. */
export function controlBlockBytes(numSlots: number, queueArenaBytes: number): number {
  return controlBlockOffsets(numSlots, queueArenaBytes).bytes;
}

/** Size of the prefix in front of each payload. */
export function prefixBytes(checksumBytes: number, metadataBytes: number): number {
  return align64(Prefix.fixedBytes + checksumBytes + metadataBytes);
}

/** Full size of a message buffer. */
export function bufferBytes(numSlots: number, slotBytes: number, prefix: number): number {
  return numSlots * (slotBytes + prefix);
}

/** Payload size of the slots of a message buffer, from its full size; 0 where it is too small for any. */
export function slotBytesOfBuffer(fullBytes: number, numSlots: number, prefix: number): number {
  return Math.max(0, Math.floor((fullBytes - numSlots * prefix) / numSlots));
}

/** Size of a block of the queue arena: header and queue. */
export function queueBlockBytes(capacity: number): number {
  return QueueBlock.bytes + align64(Queue.bytes + QueueEntry.bytes * capacity);
}

const growth: readonly (readonly [uptoBytes: number, factor: number])[] = [
  [4096, 2],
  [16384, 1.5],
  [65536, 1.25],
  [262144, 1.125],
  [1048576, 1.0625],
  [Infinity, 1.03125],
];

/** The slot size that a channel grows to so that a message fits (section 5.6). */
export function grownSlotBytes(slotBytes: number, messageBytes: number): number {
  let grown = Math.max(slotBytes, 64);
  while (grown < messageBytes) {
    grown = align64(Math.floor(grown * growth.find(([upto]) => grown <= upto)![1]));
  }
  return grown;
}
