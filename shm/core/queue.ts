// Subscriber queues: bounded, many producers, one consumer (specification, section 5.14). The available-slots
// bitset stays what counts; a queue only makes unreliable subscribers quicker, so a push may fail.

import {
  CHANNEL_STRUCT_QUEUE_ARENA,
  CHANNEL_STRUCT_QUEUE_ARENA_BYTES,
  CHANNEL_STRUCT_QUEUE_INDEX,
  LIMIT_QUEUE_ENTRIES,
  QUEUE_BLOCK_BYTES,
  QUEUE_BYTES,
  QUEUE_CAPACITY,
  QUEUE_DROP_OLDEST,
  QUEUE_ENTRY_BYTES,
  QUEUE_ENTRY_ORDINAL,
  QUEUE_ENTRY_SEQUENCE,
  QUEUE_ENTRY_SLOT,
  QUEUE_HEAD,
  QUEUE_INDEX_OFFSETS,
  QUEUE_INSERTION_FAILED,
  QUEUE_OVERFLOW_COUNT,
  QUEUE_TAIL,
} from "./offsets";

const MAX_TRIES: u32 = 64;

// The capacity of the queue found last. It is read once: were it read again, it could be another by then.
let capacity: u64 = 0;

// The address of a subscriber's queue; 0 where it has none, or an impossible one.
function queueOf(channel: u32, subscriber: u32): u32 {
  const offset = atomic.load<u64>(
    load<u32>(channel, CHANNEL_STRUCT_QUEUE_INDEX) + (subscriber << 3),
    QUEUE_INDEX_OFFSETS,
  );
  const bytes = <u64> load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA_BYTES);
  if (offset < QUEUE_BLOCK_BYTES || (offset & 7) != 0 || offset >= bytes || bytes - offset < QUEUE_BYTES) return 0;
  const queue = load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA) + <u32> offset;
  capacity = load<u64>(queue, QUEUE_CAPACITY);
  if (capacity == 0 || capacity > LIMIT_QUEUE_ENTRIES) return 0;
  return bytes - offset - QUEUE_BYTES < capacity * QUEUE_ENTRY_BYTES ? 0 : queue;
}

@inline
function entryAt(queue: u32, position: u64): u32 {
  return queue + QUEUE_BYTES + <u32> (position % capacity) * QUEUE_ENTRY_BYTES;
}

// Appends a message to a subscriber's queue. Returns false if the queue refused it: then `markRefused`.
export function push(channel: u32, subscriber: u32, slotId: u32, ordinal: u64): bool {
  const queue = queueOf(channel, subscriber);
  if (queue == 0) return true;
  for (let tries: u32 = 0; tries < MAX_TRIES; tries++) {
    const head = atomic.load<u64>(queue, QUEUE_HEAD);
    let tail = atomic.load<u64>(queue, QUEUE_TAIL);
    if (tail - head >= capacity) {
      if (!load<u8>(queue, QUEUE_DROP_OLDEST) || !dropOldest(queue)) return false;
      atomic.add<u32>(queue, 1, QUEUE_OVERFLOW_COUNT);
      tail = atomic.load<u64>(queue, QUEUE_TAIL);
    }
    const entry = entryAt(queue, tail);
    // Somebody is still at this entry, or died there. Waiting for them is out of the question.
    if (atomic.load<u64>(entry, QUEUE_ENTRY_SEQUENCE) != tail) return false;
    if (atomic.cmpxchg<u64>(queue, tail, tail + 1, QUEUE_TAIL) != tail) continue;
    store<i32>(entry, slotId, QUEUE_ENTRY_SLOT);
    store<u64>(entry, ordinal, QUEUE_ENTRY_ORDINAL);
    atomic.store<u64>(entry, tail + 1, QUEUE_ENTRY_SEQUENCE);
    return true;
  }
  return false;
}

function dropOldest(queue: u32): bool {
  for (let tries: u32 = 0; tries < MAX_TRIES; tries++) {
    const head = atomic.load<u64>(queue, QUEUE_HEAD), entry = entryAt(queue, head);
    if (atomic.load<u64>(entry, QUEUE_ENTRY_SEQUENCE) != head + 1) return false;
    if (atomic.cmpxchg<u64>(queue, head, head + 1, QUEUE_HEAD) != head) continue;
    atomic.store<u64>(entry, head + capacity, QUEUE_ENTRY_SEQUENCE);
    return true;
  }
  return false;
}

// Tells a subscriber that its queue lacks a message that its bitset has. After total_messages has grown.
export function markRefused(channel: u32, subscriber: u32): void {
  const queue = queueOf(channel, subscriber);
  if (queue && !atomic.load<u8>(queue, QUEUE_INSERTION_FAILED)) atomic.store<u8>(queue, 1, QUEUE_INSERTION_FAILED);
}
