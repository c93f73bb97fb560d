// How a publisher gets a slot (specification, sections 5.2 to 5.4).

import { clearBit, clearWasSet, isEmpty, isSet, nextSet } from "./bitset";
import {
  announcedMark,
  availableOf,
  BOTH_COUNTS,
  ccbOf,
  nobodyPublishes,
  numSubscribers,
  numSubscriberWords,
  OWNED,
  refsVchan,
  slotAt,
  subscriberWord,
  vchanOfSubscriber,
  vchansMatch,
  withdraw,
} from "./channel";
import {
  BCB_REFS,
  CCB_FREE_SLOTS_EXHAUSTED,
  CCB_ORDINALS,
  CCB_TOTAL_MESSAGES,
  CHANNEL_STRUCT_BCB,
  CHANNEL_STRUCT_COUNTERS,
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
  PUBLISHER_STRUCT_EXEMPT,
  PUBLISHER_STRUCT_EXEMPT_KNOWN,
  PUBLISHER_STRUCT_EXEMPT_STAMP,
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
  SCB_NUM_RELIABLE_SUBS,
  SCB_NUM_SUB_UPDATES,
  SCB_NUM_SUBS,
  SLOT_BUFFER_INDEX,
  SLOT_BYTES,
  SLOT_FLAG_SEEN,
  SLOT_FLAG_SEEN_BY_RELIABLE,
  SLOT_FLAGS,
  SLOT_MARK_FLAGS,
  SLOT_ORDINAL,
  SLOT_TIMESTAMP,
  SLOT_VCHAN,
  SNAPSHOT_ENTRY_BYTES,
  SNAPSHOT_ENTRY_KEY,
  SNAPSHOT_ENTRY_ORDINAL,
  SNAPSHOT_ENTRY_SLOT,
} from "./offsets";
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
  if (!withoutSubscribers && numSubscribers(channel, vchan) <= 0) return OUTCOME_NO_SUBSCRIBERS;
  const retired = load<u32>(channel, CHANNEL_STRUCT_RETIRED);
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

// The refs word by which the candidate was judged.
let lastRefs: u64 = 0;

function reusableRetired(publisher: u32, channel: u32): i32 {
  const retired = load<u32>(channel, CHANNEL_STRUCT_RETIRED);
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  let id = nextSet(retired, numSlots, 0);
  while (id >= 0) {
    lastRefs = atomic.load<u64>(slotAt(channel, id));
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

// Whether every reliable subscriber is done with the message of a slot, so that a reliable publisher may take it.
//
// The reference goes by the flag "seen by a reliable subscriber", and so loses messages as soon as there are two
// (section 9.2, 33). Shared memory has no list of the reliable ones; but each subscriber's available bit of the
// slot stays set until that subscriber has taken the message, and while it holds it the slot's count says so. So:
//
//   1. A slot that somebody holds is not free.
//   2. With no reliable subscriber, or no message in it, it is.
//   3. Subscribers whose client was found out to be unreliable (`exempt`) don't count. If one of the others that the
//      message is for has its bit set, it has not read the message. Where the exempt ones are known, or all are
//      reliable, the publisher waits. Else, if there is exactly one reliable subscriber, the flag says what that one
//      did (or one that has left since). Else the publisher waits: perhaps too long, for an unreliable subscriber,
//      until its client has asked who is who; but it does not overwrite what is unread.
//   4. If none has it set, all have read it, provided that all had their bit by the time we looked: bits are set
//      after the slot has become visible. Our publishers mark the message then. For others it is known if as many
//      messages are complete as were begun; or if nobody is publishing, and somebody has seen this message (a C++
//      publisher enters the queues shortly after it has made a message visible) or it is a whole round old.
//
// A retired slot is checked like any other: its count may contain releases of subscribers that have left since,
// and a subscriber that came later was given the message too. A subscriber that died holds nobody up once the
// server has taken it out of the bitset of subscribers and given back what it held. Everything is looked at after
// `refs` were read, and the slot is taken only if these are the same still: what was seen belongs to the message
// that is overwritten. C++ peers see nothing unusual: they set bits and flags as always. (A C++ subscriber clears all
// its bits for a moment during its first read; a slot that nobody else has to read may be taken then. A C++
// publisher still goes by the flag.)
export function mayReuse(publisher: u32, channel: u32, id: u32, refs: u64): bool {
  if (refs & (OWNED | BOTH_COUNTS)) return false;
  const slot = slotAt(channel, id), counters = load<u32>(channel, CHANNEL_STRUCT_COUNTERS);
  const numReliable = load<u16>(counters, SCB_NUM_RELIABLE_SUBS), ordinal = load<u64>(slot, SLOT_ORDINAL);
  if (numReliable == 0 || ordinal == 0) return true;

  const told = load<u32>(publisher, PUBLISHER_STRUCT_EXEMPT_KNOWN) != 0 &&
    load<u32>(publisher, PUBLISHER_STRUCT_EXEMPT_STAMP) == <u32> load<u16>(counters, SCB_NUM_SUB_UPDATES);
  const announced = isAnnounced(publisher, channel, slot, ordinal);
  const concern = concernOf(publisher, channel, id, refsVchan(refs), told);
  if (concern == NOBODY) return true;
  if (concern == UNREAD) {
    const known = told || load<u16>(counters, SCB_NUM_SUBS) <= numReliable;
    return !known && numReliable == 1 && (atomic.load<u32>(slot, SLOT_FLAGS) & SLOT_FLAG_SEEN_BY_RELIABLE) != 0;
  }
  if (announced) return true;
  if (!isOver(publisher, channel, slot, ordinal)) return false;
  return concernOf(publisher, channel, id, refsVchan(refs), told) != UNREAD;
}

// Whom a message concerns still.
const NOBODY: u32 = 0; // it is for nobody
const READ: u32 = 1; // it is for somebody, and nobody has it unread
const UNREAD: u32 = 2;

function concernOf(publisher: u32, channel: u32, id: u32, vchan: i32, told: bool): u32 {
  let concern = NOBODY;
  for (let i: u32 = 0, numWords = numSubscriberWords(channel); i < numWords; i++) {
    let word = subscriberWord(channel, i);
    if (told) word &= ~load<u64>(publisher + (i << 3), PUBLISHER_STRUCT_EXEMPT);
    while (word) {
      const subscriber = (i << 6) + <u32> ctz(word);
      word &= word - 1;
      if (!vchansMatch(vchanOfSubscriber(channel, subscriber), vchan)) continue;
      if (isSet(availableOf(channel, subscriber), id)) return UNREAD;
      concern = READ;
    }
  }
  return concern;
}

// Whether everybody has a bit of the message, or had, at this moment. Quick; `isOver` finds out where this does not.
function isAnnounced(publisher: u32, channel: u32, slot: u32, ordinal: u64): bool {
  if ((atomic.load<u32>(slot, SLOT_FLAGS) & ~SLOT_MARK_FLAGS) == announcedMark(ordinal)) return true;
  if (load<i32>(publisher, PUBLISHER_STRUCT_VCHAN) != -1) return false;
  const complete = atomic.load<u64>(ccbOf(channel), CCB_TOTAL_MESSAGES);
  return atomic.load<u64>(ccbOf(channel), CCB_ORDINALS) - 1 == complete;
}

function isOver(publisher: u32, channel: u32, slot: u32, ordinal: u64): bool {
  const vchan = <i32> load<i16>(slot, SLOT_VCHAN);
  if (vchan < -1 || vchan > 1022) return false;
  const next = atomic.load<u64>(ccbOf(channel) + (<u32> (vchan + 1) << 3), CCB_ORDINALS);
  const seen = (atomic.load<u32>(slot, SLOT_FLAGS) & (SLOT_FLAG_SEEN | SLOT_FLAG_SEEN_BY_RELIABLE)) != 0;
  if (!seen && ordinal + load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS) >= next) return false;
  return nobodyPublishes(channel, load<u32>(publisher, PUBLISHER_STRUCT_ID));
}
