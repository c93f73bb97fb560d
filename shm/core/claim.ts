// How a publisher gets a slot (specification, sections 5.2 to 5.4).

import { clearBit, clearWasSet, isEmpty, nextSet } from "./bitset";
import { BOTH_COUNTS, ccbOf, OWNED, slotAt, withdraw } from "./channel";
import {
  BCB_REFS,
  CCB_FREE_SLOTS_EXHAUSTED,
  CHANNEL_STRUCT_BCB,
  CHANNEL_STRUCT_FREE,
  CHANNEL_STRUCT_NUM_SLOTS,
  CHANNEL_STRUCT_RETIRED,
  CHANNEL_STRUCT_SLOT_WORDS,
  CHANNEL_STRUCT_SLOTS,
  LIMIT_BUFFERS,
  OUTCOME_NO_SUBSCRIBERS,
  OUTCOME_NONE,
  PUBLISHER_STRUCT_BUFFER_INDEX,
  PUBLISHER_STRUCT_CHANNEL,
  PUBLISHER_STRUCT_DOUBTS,
  PUBLISHER_STRUCT_FORCED,
  PUBLISHER_STRUCT_ID,
  PUBLISHER_STRUCT_NEXT_VICTIM,
  PUBLISHER_STRUCT_NUM_BUFFERS,
  PUBLISHER_STRUCT_NUM_VICTIMS,
  PUBLISHER_STRUCT_PREFER_RETIRED,
  PUBLISHER_STRUCT_SLOT,
  PUBLISHER_STRUCT_SLOT_ID,
  PUBLISHER_STRUCT_TUNNEL,
  PUBLISHER_STRUCT_VCHAN,
  PUBLISHER_STRUCT_VICTIMS,
  SLOT_BUFFER_INDEX,
  SLOT_BYTES,
  SLOT_ORDINAL,
  SLOT_TIMESTAMP,
  SLOT_VCHAN,
  SNAPSHOT_ENTRY_BYTES,
  SNAPSHOT_ENTRY_KEY,
  SNAPSHOT_ENTRY_ORDINAL,
  SNAPSHOT_ENTRY_SLOT,
} from "./offsets";
import { mayReuse, noteSubscribers } from "./reuse";
import { sortSnapshot } from "./snapshot";

// A candidate that is lost to another process is replaced by the next; so many times in a row it never is.
const MAX_TRIES: u32 = 1000;

// Takes a slot if nothing has happened to it since `refs` were read and nobody held it then.
@inline
export function take(publisher: u32, slot: u32, refs: u64): bool {
  return atomic.cmpxchg<u64>(slot, refs, OWNED | <u64> load<u32>(publisher, PUBLISHER_STRUCT_ID)) == refs;
}

// Assigns a slot to the newest buffer, unless it already is there: the counts of the buffers stay as they are then.
@inline
export function assignBuffer(publisher: u32, slot: u32): void {
  const bcb = load<u32>(load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL), CHANNEL_STRUCT_BCB);
  const before = <i32> load<i16>(slot, SLOT_BUFFER_INDEX);
  const newest = <i32> load<u32>(publisher, PUBLISHER_STRUCT_NUM_BUFFERS) - 1;
  if (before != newest) {
    if (<u32> before < LIMIT_BUFFERS) {
      const count = bcb + BCB_REFS + (<u32> before << 2);
      if (atomic.load<i32>(count) > 0) atomic.sub<i32>(count, 1);
    }
    store<i16>(slot, <i16> newest, SLOT_BUFFER_INDEX);
    atomic.add<i32>(bcb + BCB_REFS + (<u32> newest << 2), 1);
  }
  store<i32>(publisher, newest, PUBLISHER_STRUCT_BUFFER_INDEX);
}

// Makes a slot just taken ready to be written.
@inline
export function prepare(publisher: u32, channel: u32, id: u32, forced: u32): i32 {
  const slot = slotAt(channel, id), vchan = load<i32>(publisher, PUBLISHER_STRUCT_VCHAN);
  store<u64>(slot, 0, SLOT_ORDINAL);
  store<u64>(slot, 0, SLOT_TIMESTAMP);
  store<i16>(slot, <i16> vchan, SLOT_VCHAN);
  assignBuffer(publisher, slot);
  store<u32>(publisher, slot, PUBLISHER_STRUCT_SLOT);
  store<u32>(publisher, id, PUBLISHER_STRUCT_SLOT_ID);
  store<u32>(publisher, forced, PUBLISHER_STRUCT_FORCED);
  withdraw(channel, id, vchan);
  return <i32> id;
}

// A slot that was never used, out of its pool; -1 where there is none.
@inline
function takeFree(channel: u32): i32 {
  const exhausted = ccbOf(channel) + CCB_FREE_SLOTS_EXHAUSTED;
  if (load<u8>(exhausted)) return -1;
  const free = load<u32>(channel, CHANNEL_STRUCT_FREE), numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  let id = nextSet(free, numSlots, 0);
  while (id >= 0 && !clearWasSet(free, id)) id = nextSet(free, numSlots, 0);
  if (id >= 0 && isEmpty(free, load<u32>(channel, CHANNEL_STRUCT_SLOT_WORDS))) store<u8>(exhausted, 1);
  return id;
}

// A slot that every subscriber has released, out of its pool; -1 where there is none.
@inline
function takeRetired(channel: u32): i32 {
  const retired = load<u32>(channel, CHANNEL_STRUCT_RETIRED);
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  let id = nextSet(retired, numSlots, 0);
  while (id >= 0 && !clearWasSet(retired, id)) id = nextSet(retired, numSlots, 0);
  return id;
}

// The oldest message that nobody holds; -1 where all are held.
//
// All slots are looked at once in so many messages as there are slots: what was unheld then and has not been touched
// since is older than whatever came later. (Older still may be messages that somebody has let go in the meantime.)
function oldestUnheld(publisher: u32, channel: u32): i32 {
  let listed = false;
  while (true) {
    const next = load<u32>(publisher, PUBLISHER_STRUCT_NEXT_VICTIM);
    if (next >= load<u32>(publisher, PUBLISHER_STRUCT_NUM_VICTIMS)) {
      if (listed) return -1;
      listVictims(publisher, channel);
      listed = true;
      continue;
    }
    store<u32>(publisher, next + 1, PUBLISHER_STRUCT_NEXT_VICTIM);
    const entry = load<u32>(publisher, PUBLISHER_STRUCT_VICTIMS) + next * SNAPSHOT_ENTRY_BYTES;
    const id = load<u32>(entry, SNAPSHOT_ENTRY_SLOT), slot = slotAt(channel, id);
    if (atomic.load<u64>(slot) & (OWNED | BOTH_COUNTS)) continue;
    if (load<u64>(slot, SLOT_TIMESTAMP) == load<u64>(entry, SNAPSHOT_ENTRY_KEY)) return id;
  }
}

function listVictims(publisher: u32, channel: u32): void {
  const victims = load<u32>(publisher, PUBLISHER_STRUCT_VICTIMS);
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  let count: u32 = 0, slot = load<u32>(channel, CHANNEL_STRUCT_SLOTS);
  for (let id: u32 = 0; id < numSlots; id++, slot += SLOT_BYTES) {
    if (atomic.load<u64>(slot) & (OWNED | BOTH_COUNTS)) continue;
    const entry = victims + count++ * SNAPSHOT_ENTRY_BYTES;
    store<u64>(entry, load<u64>(slot, SLOT_TIMESTAMP), SNAPSHOT_ENTRY_KEY);
    store<u64>(entry, load<u64>(slot, SLOT_ORDINAL), SNAPSHOT_ENTRY_ORDINAL);
    store<u64>(entry, id, SNAPSHOT_ENTRY_SLOT);
  }
  sortSnapshot(victims, count);
  store<u32>(publisher, count, PUBLISHER_STRUCT_NUM_VICTIMS);
  store<u32>(publisher, 0, PUBLISHER_STRUCT_NEXT_VICTIM);
}

// Gets a slot for an unreliable publisher, if need be one with a message that not everybody has read (section 5.3).
// Returns its id, or Outcome.none when all are held.
export function claimUnreliable(publisher: u32): i32 {
  const channel = load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL);
  for (let tries: u32 = 0; tries < MAX_TRIES; tries++) {
    const retiredFirst = load<u32>(publisher, PUBLISHER_STRUCT_PREFER_RETIRED);
    let forced: u32 = 0, id = retiredFirst ? takeRetired(channel) : takeFree(channel);
    if (id < 0) id = retiredFirst ? takeFree(channel) : takeRetired(channel);
    if (id < 0) {
      id = oldestUnheld(publisher, channel);
      forced = 1;
    }
    if (id < 0) continue;
    const slot = slotAt(channel, id), refs = atomic.load<u64>(slot);
    if (!(refs & (OWNED | BOTH_COUNTS)) && take(publisher, slot, refs)) {
      return prepare(publisher, channel, id, forced);
    }
  }
  store<u32>(publisher, 0, PUBLISHER_STRUCT_SLOT);
  return OUTCOME_NONE;
}

// Gets a slot for a reliable publisher (section 5.4, with `mayReuse` in place of its conditions). Returns its id,
// Outcome.none when the subscribers have to read first, or Outcome.noSubscribers.
export function claimReliable(publisher: u32, withoutSubscribers: u32): i32 {
  const channel = load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL);
  const vchan = load<i32>(publisher, PUBLISHER_STRUCT_VCHAN);
  store<u32>(publisher, 0, PUBLISHER_STRUCT_DOUBTS);
  const numSubs = noteSubscribers(publisher, channel, vchan), retired = load<u32>(channel, CHANNEL_STRUCT_RETIRED);
  if (!withoutSubscribers && numSubs <= 0) return OUTCOME_NO_SUBSCRIBERS;
  for (let tries: u32 = 0; tries < MAX_TRIES; tries++) {
    let forced: u32 = 0, id = takeFree(channel);
    if (id >= 0) {
      lastRefs = atomic.load<u64>(slotAt(channel, id));
      if (!mayReuse(publisher, channel, id, lastRefs)) continue;
    } else {
      if (!load<u32>(publisher, PUBLISHER_STRUCT_TUNNEL)) id = reusableRetired(publisher, channel);
      if (id < 0) {
        id = oldestReusable(publisher, channel);
        forced = 1;
      }
      if (id < 0) return OUTCOME_NONE;
    }
    if (!take(publisher, slotAt(channel, id), lastRefs)) continue;
    clearBit(retired, id);
    return prepare(publisher, channel, id, forced);
  }
  return OUTCOME_NONE;
}

// Whether there are slots that everybody has released. A publisher that gets none looks at this again and again: at one
// word where there are up to 64 slots, and not at what those write who are to release some.
export function hasVacancy(publisher: u32): bool {
  const channel = load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL);
  return !isEmpty(load<u32>(channel, CHANNEL_STRUCT_RETIRED), load<u32>(channel, CHANNEL_STRUCT_SLOT_WORDS));
}

// The refs word by which the candidate was judged.
let lastRefs: u64 = 0;

function reusableRetired(publisher: u32, channel: u32): i32 {
  const retired = load<u32>(channel, CHANNEL_STRUCT_RETIRED);
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  let id = nextSet(retired, numSlots, 0);
  while (id >= 0) {
    // As good as taken: its cache line is fetched for writing at once, and not once more by `take`.
    lastRefs = atomic.add<u64>(slotAt(channel, id), 0);
    if (mayReuse(publisher, channel, id, lastRefs)) return id;
    id = nextSet(retired, numSlots, id + 1);
  }
  return -1;
}

function oldestReusable(publisher: u32, channel: u32): i32 {
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  let oldest: u64 = u64.MAX_VALUE, best: i32 = -1, bestRefs: u64 = 0;
  let slot = load<u32>(channel, CHANNEL_STRUCT_SLOTS);
  for (let id: u32 = 0; id < numSlots; id++, slot += SLOT_BYTES) {
    const refs = atomic.load<u64>(slot), timestamp = load<u64>(slot, SLOT_TIMESTAMP);
    if (timestamp >= oldest || !mayReuse(publisher, channel, id, refs)) continue;
    oldest = timestamp;
    best = id;
    bestRefs = refs;
  }
  lastRefs = bestRefs;
  return best;
}
