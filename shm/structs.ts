/**
 * Private structs that TypeScript and the WebAssembly core share, as offsets in bytes.
 *
 * They live in the arena, belong to one process and are no part of the contract: free to change. A word is a
 * u32 unless it says otherwise. The core's constants are generated from these tables too.
 */

/** A channel's control blocks, as addresses in the arena. */
export const ChannelStruct = {
  bytes: 64,
  ccb: 0,
  bcb: 4,
  /** The channel's entry in the SCB. */
  counters: 8,
  numSlots: 12,
  /** Words of a bitset of slots. */
  slotWords: 16,
  /** From one subscriber's available-slots bitset to the next. */
  availableStride: 20,
  slots: 24,
  /** Words, behind the header, of the bitsets. */
  retired: 28,
  free: 32,
  available: 36,
  queueIndex: 40,
  queueArena: 44,
  queueArenaBytes: 48,
} as const;

/** What rings a doorbell: whom it can wake, and how far it is. */
export const RingerStruct = {
  bytes: 192,
  bell: 0,
  /** The doorbell's state when it began. */
  state: 4,
  /** The sleeper found last, and its word. */
  id: 8,
  word: 12,
  /** Whether somebody sleeps on whom it cannot wake, or need not. */
  left: 16,
  /** 1024 bits: users that it can wake. */
  known: 64,
} as const;

/** A publisher. An unreliable one needs no more than the first two cache lines for most messages. */
export const PublisherStruct = {
  bytes: 576,
  channel: 0,
  id: 4,
  /** i32. */
  vchan: 8,
  reliable: 12,
  /** Passes on messages of another machine: takes no retired slots (section 5.4). */
  tunnel: 16,
  /** Buffers this process has mapped; slots are assigned to the last. */
  numBuffers: 20,
  /** Address of the slot it owns, 0 for none; its id and the buffer it is assigned to. */
  slot: 24,
  slotId: 28,
  bufferIndex: 32,
  /** The slot was taken from a message that not everybody has read. */
  forced: 36,
  /** struct timespec of the publication. */
  time: 40,
  /** u64, of the message published last. */
  ordinal: 56,
  /** Whether `exempt` was told, and num_sub_updates then. */
  exemptKnown: 64,
  exemptStamp: 68,
  /** The prefix of the message, to be copied in front of the payload. */
  prefix: 72,
  /** Address of what wakes the subscribers after each publication; 0: nothing does. */
  ringer: 120,
  /** Whether slots that everybody has read are taken before those that were never used. */
  preferRetired: 124,
  /** 1024 bits: subscribers that never hold a reliable publisher up. */
  exempt: 128,
  /** 1024 bits: subscribers whose queue refused the message. */
  refused: 256,
  /** An unreliable publisher's list of slots to overwrite: `SnapshotEntry` per slot, by time; and how far it is. */
  victims: 384,
  numVictims: 388,
  nextVictim: 392,
  /**
   * When subscribers came or went last, as a reliable publisher has noticed it: num_sub_updates; how many there were, in
   * the bitset and by num_subs; whether it trusts them all; and (u64 each) the next ordinal then, and those at the last look at which it trusted all:
   * before they came or went, and ever.
   */
  epochStamp: 400,
  epochSubscribers: 404,
  since: 408,
  before: 416,
  looked: 424,
  trustsAll: 436,
  /** Subscribers whose available bits are clear only if they have read (1024 bits), and num_sub_updates of that. */
  trustStamp: 432,
  trusted: 440,
  /** Whether it got no slot only because of subscribers that it does not trust. */
  doubts: 568,
  epochNumSubs: 572,
} as const;

/** A subscriber. */
export const SubscriberStruct = {
  bytes: 192,
  channel: 0,
  id: 4,
  /** i32. */
  vchan: 8,
  reliable: 12,
  passActivation: 16,
  /** There are messages of virtual channels, as this is a multiplexer's subscriber. */
  multiplexed: 20,
  detectDrops: 136,
  /** Whether there may be messages still to come that were numbered before the one read last. */
  mayBeLate: 156,
  /** Unread messages that it keeps at the most: older ones are dropped. 0: all. */
  backlog: 152,
  /** Whether all publications begun before the snapshot were complete: what it lacks is lost. */
  settled: 140,
  /** Ordinals passed over that may still turn up, and those given up since the last message. */
  missing: 144,
  lost: 148,
  maxActive: 24,
  active: 28,
  /** A read found no room below `maxActive`. */
  starved: 32,
  populated: 36,
  snapshotValid: 40,
  cursor: 44,
  count: 48,
  /** The snapshot's ordinals follow each other: nothing can come in between. */
  gapless: 52,
  /** u64, total_messages at the snapshot. */
  stamp: 56,
  /** The snapshot: `SnapshotEntry` per slot. */
  snapshot: 64,
  /** u64 per slot: key of the message delivered last. */
  delivered: 68,
  /** u64 per virtual channel (only one for a virtual channel's own subscriber): the highest ordinal delivered. */
  lastOrdinals: 72,
  numBuffers: 76,
  /** u32 per buffer: slot size; 0 where not mapped. */
  slotBytes: 80,
  /** From here on: what the last read returned. */
  slotId: 84,
  messageSize: 88,
  bufferIndex: 92,
  /** u64. */
  ordinal: 96,
  /** u64. */
  timestamp: 104,
  /** i32. */
  messageVchan: 112,
  drops: 116,
  activation: 120,
  /** Messages that were let go unread may have made room for reliable publishers. */
  madeRoom: 124,
  /** Slots that a read retired, as u32 at `snapshot`; or that a release retired, in `retiredSlot`. */
  numRetired: 128,
  retiredSlot: 132,
} as const;

/** A message in a snapshot. */
export const SnapshotEntry = {
  bytes: 24,
  /** u64: sorted by this, then by ordinal. */
  key: 0,
  /** u64. */
  ordinal: 8,
  slot: 16,
  /** i32. */
  vchan: 20,
} as const;

/** Results of the core that are no slot ids. */
export const Outcome = {
  /** No message, or no slot. */
  none: -1,
  /** A reliable publisher has nobody to publish to. */
  noSubscribers: -2,
  /** As many messages are held as the subscriber may hold. */
  atLimit: -3,
  /** The message is in a buffer that is not mapped. */
  needsBuffer: -4,
  /** The slot contradicts itself; the message was let go. */
  malformed: -5,
  /** The queue arena has no room. */
  noRoom: -6,
  /** The queue arena contradicts itself. */
  corrupt: -7,
} as const;

/**
 * Bits of what a release returns. `unblocks`: no reliable subscriber holds the message any more; reliable publishers
 * may have waited for that. `starved`: a read found no room before, and may find some now.
 */
export const Release = { released: 1, retired: 2, unblocks: 4, starved: 8 } as const;
