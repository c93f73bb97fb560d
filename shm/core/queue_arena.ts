// The queue arena: where the server keeps the queues of subscribers (specification, section 5.15). Blocks lie side
// by side from offset 0 to the high-water mark. A block taken from a subscriber may still be written to by
// publishers that were among the queues at that moment: it is free only when each has left.

import { clearAll, clearBit, isEmpty, isSet, nextSet, setBit } from "./bitset";
import { subscribersAddress } from "./channel";
import {
  BITSET_ID_WORDS,
  BITSET_NUM_BITS,
  BITSET_WORDS,
  CHANNEL_STRUCT_QUEUE_ARENA,
  CHANNEL_STRUCT_QUEUE_ARENA_BYTES,
  CHANNEL_STRUCT_QUEUE_INDEX,
  LIMIT_QUEUE_ENTRIES,
  LIMIT_USERS,
  OUTCOME_CORRUPT,
  OUTCOME_NO_ROOM,
  QUEUE_BLOCK_BLOCK_SIZE,
  QUEUE_BLOCK_BYTES,
  QUEUE_BLOCK_MINIMUM_BYTES,
  QUEUE_BLOCK_STATE,
  QUEUE_BLOCK_STATE_ALLOCATED,
  QUEUE_BLOCK_STATE_FREE,
  QUEUE_BLOCK_STATE_RETIRED,
  QUEUE_BLOCK_WAITING_PUBLISHERS,
  QUEUE_BYTES,
  QUEUE_CAPACITY,
  QUEUE_DROP_OLDEST,
  QUEUE_ENTRY_BYTES,
  QUEUE_ENTRY_SEQUENCE,
  QUEUE_ENTRY_SLOT,
  QUEUE_INDEX_ACTIVE_PUBLISHERS,
  QUEUE_INDEX_NEXT_OFFSET,
  QUEUE_INDEX_OFFSETS,
} from "./offsets";

const NO_QUEUE: u64 = u64.MAX_VALUE;

@inline
function indexOf(channel: u32): u32 {
  return load<u32>(channel, CHANNEL_STRUCT_QUEUE_INDEX);
}

@inline
function blockAt(channel: u32, offset: u32): u32 {
  return load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA) + offset;
}

// The size of the block at an offset below `end`. Whatever somebody may write there since the arena was checked:
// a walk over the blocks goes on and ends at `end`.
function sizeAt(channel: u32, offset: u32, end: u32): u32 {
  const size = load<u64>(blockAt(channel, offset), QUEUE_BLOCK_BLOCK_SIZE);
  return <u32> min<u64>(max<u64>(size, QUEUE_BLOCK_MINIMUM_BYTES), end - offset);
}

@inline
function stateOf(block: u32): u32 {
  return atomic.load<u32>(block, QUEUE_BLOCK_STATE);
}

@inline
function waitingOf(block: u32): u32 {
  return block + QUEUE_BLOCK_WAITING_PUBLISHERS + BITSET_WORDS;
}

@inline
function highWater(channel: u32): u32 {
  const end = atomic.load<u64>(indexOf(channel), QUEUE_INDEX_NEXT_OFFSET);
  return <u32> min<u64>(end, load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA_BYTES));
}

@inline
export function blockBytes(capacity: u32): u32 {
  return QUEUE_BLOCK_BYTES + ((QUEUE_BYTES + QUEUE_ENTRY_BYTES * capacity + 63) & ~63);
}

// Whether the blocks of the arena lie side by side up to the high-water mark, and each queue is in a block of its
// own that is allocated and big enough (section 3.5). Everything below relies on it, and begins with it.
export function checkArena(channel: u32): i32 {
  const bytes = load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA_BYTES);
  const end = atomic.load<u64>(indexOf(channel), QUEUE_INDEX_NEXT_OFFSET);
  if (end > bytes) return OUTCOME_CORRUPT;
  for (let offset: u32 = 0; offset < <u32> end;) {
    const left = <u32> end - offset, block = blockAt(channel, offset);
    if (left < QUEUE_BLOCK_MINIMUM_BYTES) return OUTCOME_CORRUPT;
    const size = load<u64>(block, QUEUE_BLOCK_BLOCK_SIZE);
    if (size < QUEUE_BLOCK_MINIMUM_BYTES || size > left || (size & 63) != 0) return OUTCOME_CORRUPT;
    if (stateOf(block) > QUEUE_BLOCK_STATE_FREE) return OUTCOME_CORRUPT;
    offset += <u32> size;
  }
  for (let id: u32 = 0; id < LIMIT_USERS; id++) {
    const offset = offsetOf(channel, id);
    if (offset == NO_QUEUE) continue;
    if (offset < QUEUE_BLOCK_BYTES || offset >= end || !isBlock(channel, <u32> offset - QUEUE_BLOCK_BYTES)) {
      return OUTCOME_CORRUPT;
    }
    const block = blockAt(channel, <u32> offset - QUEUE_BLOCK_BYTES);
    const capacity = load<u64>(block, QUEUE_BLOCK_BYTES + QUEUE_CAPACITY);
    if (stateOf(block) != QUEUE_BLOCK_STATE_ALLOCATED || capacity > LIMIT_QUEUE_ENTRIES) return OUTCOME_CORRUPT;
    if (blockBytes(<u32> capacity) > load<u64>(block, QUEUE_BLOCK_BLOCK_SIZE)) return OUTCOME_CORRUPT;
  }
  return 0;
}

@inline
function offsetOf(channel: u32, subscriber: u32): u64 {
  return atomic.load<u64>(indexOf(channel) + (subscriber << 3), QUEUE_INDEX_OFFSETS);
}

// Whether a block begins at an offset.
function isBlock(channel: u32, offset: u32): bool {
  const end = highWater(channel);
  let at: u32 = 0;
  while (at < offset && at < end) at += sizeAt(channel, at, end);
  return at == offset && at < end;
}

// Gives a subscriber a queue. Returns its capacity, which is 0 where there is no arena; Outcome.noRoom or
// Outcome.corrupt. A queue of the right capacity that it has already stays.
export function allocateQueue(channel: u32, subscriber: u32, capacity: u32, dropOldest: u32): i32 {
  if (load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA_BYTES) == 0 || capacity == 0) return 0;
  if (checkArena(channel)) return OUTCOME_CORRUPT;
  const present = offsetOf(channel, subscriber);
  if (present != NO_QUEUE) {
    if (present >= highWater(channel)) return OUTCOME_CORRUPT;
    const there = load<u64>(blockAt(channel, <u32> present), QUEUE_CAPACITY);
    return there == capacity ? <i32> capacity : OUTCOME_CORRUPT;
  }
  tidy(channel);
  const bytes = blockBytes(capacity), offset = takeBlock(channel, bytes);
  if (offset < 0) return OUTCOME_NO_ROOM;
  const block = blockAt(channel, offset);
  clearAll(waitingOf(block), BITSET_ID_WORDS);
  store<u64>(block, LIMIT_USERS, QUEUE_BLOCK_WAITING_PUBLISHERS + BITSET_NUM_BITS);
  atomic.store<u32>(block, QUEUE_BLOCK_STATE_ALLOCATED, QUEUE_BLOCK_STATE);
  const queue = block + QUEUE_BLOCK_BYTES;
  memory.fill(queue, 0, bytes - QUEUE_BLOCK_BYTES);
  store<u64>(queue, capacity, QUEUE_CAPACITY);
  store<u8>(queue, dropOldest ? 1 : 0, QUEUE_DROP_OLDEST);
  for (let i: u32 = 0; i < capacity; i++) {
    const entry = queue + QUEUE_BYTES + i * QUEUE_ENTRY_BYTES;
    store<u64>(entry, i, QUEUE_ENTRY_SEQUENCE);
    store<i32>(entry, -1, QUEUE_ENTRY_SLOT);
  }
  atomic.store<u64>(indexOf(channel) + (subscriber << 3), offset + QUEUE_BLOCK_BYTES, QUEUE_INDEX_OFFSETS);
  return <i32> capacity;
}

// The offset of a block of a size: the smallest free one that is big enough, or a new one; -1 where there is none.
function takeBlock(channel: u32, bytes: u32): i32 {
  const end = highWater(channel);
  let best: i32 = -1, bestSize: u32 = u32.MAX_VALUE;
  for (let offset: u32 = 0; offset < end; offset += sizeAt(channel, offset, end)) {
    const block = blockAt(channel, offset), size = sizeAt(channel, offset, end);
    if (stateOf(block) != QUEUE_BLOCK_STATE_FREE || size < bytes || size >= bestSize) continue;
    best = offset;
    bestSize = size;
  }
  if (best < 0) {
    const arenaBytes = load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA_BYTES);
    if (bytes > arenaBytes - end) return -1;
    store<u64>(blockAt(channel, end), bytes, QUEUE_BLOCK_BLOCK_SIZE);
    atomic.store<u64>(indexOf(channel), end + bytes, QUEUE_INDEX_NEXT_OFFSET);
    return end;
  }
  const rest = bestSize - bytes;
  if (rest >= QUEUE_BLOCK_MINIMUM_BYTES) {
    const split = blockAt(channel, best + bytes);
    memory.fill(split, 0, QUEUE_BLOCK_BYTES);
    store<u64>(split, rest, QUEUE_BLOCK_BLOCK_SIZE);
    store<u64>(split, LIMIT_USERS, QUEUE_BLOCK_WAITING_PUBLISHERS + BITSET_NUM_BITS);
    atomic.store<u32>(split, QUEUE_BLOCK_STATE_FREE, QUEUE_BLOCK_STATE);
    store<u64>(blockAt(channel, best), bytes, QUEUE_BLOCK_BLOCK_SIZE);
  }
  return best;
}

// Frees the retired blocks that no publisher can still be at, and joins free neighbours.
function tidy(channel: u32): void {
  const end = highWater(channel);
  let before: u32 = 0;
  for (let offset: u32 = 0; offset < end;) {
    const block = blockAt(channel, offset), size = sizeAt(channel, offset, end);
    if (stateOf(block) == QUEUE_BLOCK_STATE_RETIRED) settle(channel, block);
    if (stateOf(block) != QUEUE_BLOCK_STATE_FREE) {
      before = 0;
    } else if (before == 0) {
      before = block;
    } else {
      store<u64>(before, block + size - before, QUEUE_BLOCK_BLOCK_SIZE);
    }
    offset += size;
  }
}

// Drops the publishers that have left from those that a retired block waits for.
function settle(channel: u32, block: u32): void {
  const waiting = waitingOf(block), active = indexOf(channel) + QUEUE_INDEX_ACTIVE_PUBLISHERS;
  for (let id = nextSet(waiting, LIMIT_USERS, 0); id >= 0; id = nextSet(waiting, LIMIT_USERS, id + 1)) {
    if (atomic.load<u32>(active + (<u32> id << 2)) == 0) clearBit(waiting, id);
  }
  if (isEmpty(waiting, BITSET_ID_WORDS)) atomic.store<u32>(block, QUEUE_BLOCK_STATE_FREE, QUEUE_BLOCK_STATE);
}

function retireBlock(channel: u32, block: u32): void {
  const waiting = waitingOf(block), active = indexOf(channel) + QUEUE_INDEX_ACTIVE_PUBLISHERS;
  clearAll(waiting, BITSET_ID_WORDS);
  for (let id: u32 = 0; id < LIMIT_USERS; id++) if (atomic.load<u32>(active + (id << 2))) setBit(waiting, id);
  const free = isEmpty(waiting, BITSET_ID_WORDS);
  atomic.store<u32>(block, free ? QUEUE_BLOCK_STATE_FREE : QUEUE_BLOCK_STATE_RETIRED, QUEUE_BLOCK_STATE);
}

// Takes a subscriber's queue away. Returns 0 or Outcome.corrupt.
export function retireQueue(channel: u32, subscriber: u32): i32 {
  if (load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA_BYTES) == 0) return 0;
  const corrupt = checkArena(channel);
  const offset = atomic.xchg<u64>(indexOf(channel) + (subscriber << 3), NO_QUEUE, QUEUE_INDEX_OFFSETS);
  if (offset == NO_QUEUE && !corrupt) return 0;
  if (corrupt || offset < QUEUE_BLOCK_BYTES || offset >= highWater(channel)) return OUTCOME_CORRUPT;
  retireBlock(channel, blockAt(channel, <u32> offset - QUEUE_BLOCK_BYTES));
  return 0;
}

// After a server died: takes away the queues of ids that have no subscriber, and the blocks without an owner
// (section 3.5). Returns 0 or Outcome.corrupt.
export function reconcileQueues(channel: u32): i32 {
  if (load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA_BYTES) == 0) return 0;
  if (checkArena(channel)) return OUTCOME_CORRUPT;
  const subscribers = subscribersAddress(channel), end = highWater(channel);
  for (let id: u32 = 0; id < LIMIT_USERS; id++) {
    const offset = offsetOf(channel, id);
    if (offset == NO_QUEUE) continue;
    if (!isSet(subscribers, id)) retireQueue(channel, id);
    else if (ownersOf(channel, offset) != 1) return OUTCOME_CORRUPT;
  }
  for (let offset: u32 = 0; offset < end; offset += sizeAt(channel, offset, end)) {
    const block = blockAt(channel, offset);
    if (stateOf(block) != QUEUE_BLOCK_STATE_ALLOCATED) continue;
    if (ownersOf(channel, offset + QUEUE_BLOCK_BYTES) == 0) retireBlock(channel, block);
  }
  tidy(channel);
  return 0;
}

function ownersOf(channel: u32, offset: u64): u32 {
  let owners: u32 = 0;
  for (let id: u32 = 0; id < LIMIT_USERS; id++) if (offsetOf(channel, id) == offset) owners++;
  return owners;
}
