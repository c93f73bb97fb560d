// How a subscriber reads and lets go (specification, sections 5.7, 5.9 and 5.11).

import { clearBit, clearWasSet, maskOf, nextSet, setBit, wordOf } from "./bitset";
import {
  availableOf,
  ccbOf,
  DONE,
  GONE,
  nobodyPublishes,
  OWNED,
  pin,
  slotAt,
  UNREAD,
  unpin,
  vchansMatch,
} from "./channel";
import {
  BITSET_WORDS,
  CCB_ORDINALS,
  CCB_TOTAL_DROPS,
  CCB_TOTAL_MESSAGES,
  CHANNEL_STRUCT_NUM_SLOTS,
  OUTCOME_AT_LIMIT,
  OUTCOME_MALFORMED,
  OUTCOME_NEEDS_BUFFER,
  OUTCOME_NONE,
  RELEASE_RELEASED,
  RELEASE_RETIRED,
  RELEASE_STARVED,
  RELEASE_UNBLOCKS,
  SLOT_BRIDGED_SLOT,
  SLOT_BUFFER_INDEX,
  SLOT_FLAG_ACTIVATION,
  SLOT_FLAG_SEEN,
  SLOT_FLAG_SEEN_BY_RELIABLE,
  SLOT_FLAGS,
  SLOT_MESSAGE_SIZE,
  SLOT_ORDINAL,
  SLOT_OWNERS,
  SLOT_TIMESTAMP,
  SLOT_VCHAN,
  SNAPSHOT_ENTRY_BYTES,
  SNAPSHOT_ENTRY_KEY,
  SNAPSHOT_ENTRY_ORDINAL,
  SNAPSHOT_ENTRY_SLOT,
  SNAPSHOT_ENTRY_VCHAN,
  SUBSCRIBER_STRUCT_ACTIVATION,
  SUBSCRIBER_STRUCT_ACTIVE,
  SUBSCRIBER_STRUCT_BACKLOG,
  SUBSCRIBER_STRUCT_BUFFER_INDEX,
  SUBSCRIBER_STRUCT_CHANNEL,
  SUBSCRIBER_STRUCT_COUNT,
  SUBSCRIBER_STRUCT_CURSOR,
  SUBSCRIBER_STRUCT_DELIVERED,
  SUBSCRIBER_STRUCT_DETECT_DROPS,
  SUBSCRIBER_STRUCT_DROPS,
  SUBSCRIBER_STRUCT_GAPLESS,
  SUBSCRIBER_STRUCT_ID,
  SUBSCRIBER_STRUCT_LAST_ORDINALS,
  SUBSCRIBER_STRUCT_LOST,
  SUBSCRIBER_STRUCT_MADE_ROOM,
  SUBSCRIBER_STRUCT_MAX_ACTIVE,
  SUBSCRIBER_STRUCT_MAY_BE_LATE,
  SUBSCRIBER_STRUCT_MESSAGE_SIZE,
  SUBSCRIBER_STRUCT_MESSAGE_VCHAN,
  SUBSCRIBER_STRUCT_MISSING,
  SUBSCRIBER_STRUCT_MULTIPLEXED,
  SUBSCRIBER_STRUCT_NUM_BUFFERS,
  SUBSCRIBER_STRUCT_NUM_RETIRED,
  SUBSCRIBER_STRUCT_ORDINAL,
  SUBSCRIBER_STRUCT_PASS_ACTIVATION,
  SUBSCRIBER_STRUCT_POPULATED,
  SUBSCRIBER_STRUCT_RELIABLE,
  SUBSCRIBER_STRUCT_RETIRED_SLOT,
  SUBSCRIBER_STRUCT_SETTLED,
  SUBSCRIBER_STRUCT_SLOT_BYTES,
  SUBSCRIBER_STRUCT_SLOT_ID,
  SUBSCRIBER_STRUCT_SNAPSHOT,
  SUBSCRIBER_STRUCT_SNAPSHOT_VALID,
  SUBSCRIBER_STRUCT_STAMP,
  SUBSCRIBER_STRUCT_STARVED,
  SUBSCRIBER_STRUCT_TIMESTAMP,
  SUBSCRIBER_STRUCT_VCHAN,
} from "./offsets";
import { sortSnapshot } from "./snapshot";

const MAX_TRIES: u32 = 1000;
const NO_USER: u32 = u32.MAX_VALUE;

@inline
function ownBits(subscriber: u32): u32 {
  return availableOf(load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL), load<u32>(subscriber, SUBSCRIBER_STRUCT_ID));
}

// What identifies a message in its slot for good: the whole ordinal, and whose ordinal it is.
@inline
function messageKey(ordinal: u64, vchan: i32): u64 {
  return (ordinal << 10 & ~AGAIN) | <u64> (<u32> vchan & 0x3FF);
}

// Set in the key of a message that was found after it had been read: its release counts no more.
const AGAIN: u64 = 0x8000000000000000;

@inline
function deliveredAt(subscriber: u32, slotId: u32): u32 {
  return load<u32>(subscriber, SUBSCRIBER_STRUCT_DELIVERED) + (slotId << 3);
}

@inline
function lastOrdinalAt(subscriber: u32, vchan: i32): u32 {
  const ordinals = load<u32>(subscriber, SUBSCRIBER_STRUCT_LAST_ORDINALS);
  return load<i32>(subscriber, SUBSCRIBER_STRUCT_VCHAN) == -1 ? ordinals + (<u32> (vchan + 1) << 3) : ordinals;
}

// Before the first read: every message that is still there counts as unread. Unlike the reference this only sets
// bits: there is no moment at which a reliable publisher could take an unread message for read. A bit too many
// does no harm, as `pin` checks the message.
function populate(subscriber: u32): void {
  const channel = load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL), bits = ownBits(subscriber);
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS), vchan = load<i32>(subscriber, SUBSCRIBER_STRUCT_VCHAN);
  for (let id: u32 = 0; id < numSlots; id++) {
    const slot = slotAt(channel, id);
    if ((atomic.load<u64>(slot) & OWNED) || load<u64>(slot, SLOT_ORDINAL) == 0) continue;
    if (vchansMatch(<i32> load<i16>(slot, SLOT_VCHAN), vchan)) setBit(bits, id);
  }
  store<u32>(subscriber, 1, SUBSCRIBER_STRUCT_POPULATED);
}

// Lists the unread messages, oldest first. Of a single channel, by ordinal; of a multiplexer, whose channels count
// for themselves, by time.
//
// A message that is published meanwhile must not be listed without those published before it. On a single channel there
// is none before it where the list goes on without a gap from the message read last, before which there is none any more;
// else the ones numbered after the beginning are left out. (The first is the quicker: each publisher begins with writing
// the number that the other has to look at.) On a multiplexer it is tried again.
function collect(subscriber: u32): void {
  const channel = load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL), ccb = ccbOf(channel);
  const multiplexed = load<u32>(subscriber, SUBSCRIBER_STRUCT_MULTIPLEXED) != 0;
  const vchan = load<i32>(subscriber, SUBSCRIBER_STRUCT_VCHAN), alone = !multiplexed && vchan == -1;
  let stamp: u64 = 0, settled = false, tries: u32 = 0;
  if (alone && !load<u32>(subscriber, SUBSCRIBER_STRUCT_MAY_BE_LATE)) {
    stamp = atomic.load<u64>(ccb, CCB_TOTAL_MESSAGES);
    settled = listUnread(subscriber, channel, false, u64.MAX_VALUE, load<u64>(lastOrdinalAt(subscriber, -1)) + 1);
  }
  if (!settled) {
    do {
      stamp = atomic.load<u64>(ccb, CCB_TOTAL_MESSAGES);
      const end = atomic.load<u64>(ccb + (<u32> (vchan + 1) << 3), CCB_ORDINALS), complete = alone && end - 1 == stamp;
      if (complete) store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_MAY_BE_LATE);
      settled = complete || (load<u32>(subscriber, SUBSCRIBER_STRUCT_MISSING) != 0 && nobodyPublishes(channel, NO_USER));
      listUnread(subscriber, channel, multiplexed, end, 0);
    } while (multiplexed && ++tries < MAX_TRIES && atomic.load<u64>(ccb, CCB_TOTAL_MESSAGES) != stamp);
  }
  if (<bool> load<u32>(subscriber, SUBSCRIBER_STRUCT_MULTIPLEXED) != multiplexed) return collect(subscriber);
  if (settled) giveUpMissing(subscriber, ccb);
  store<u32>(subscriber, settled ? 1 : 0, SUBSCRIBER_STRUCT_SETTLED);
  store<u64>(subscriber, stamp, SUBSCRIBER_STRUCT_STAMP);
  store<u32>(subscriber, 1, SUBSCRIBER_STRUCT_SNAPSHOT_VALID);
  store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_CURSOR);
}

// Returns whether it lists all ordinals from `next` on up to the last one, or nothing.
function listUnread(subscriber: u32, channel: u32, multiplexed: bool, end: u64, next: u64): bool {
  const bits = ownBits(subscriber), numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  const vchan = load<i32>(subscriber, SUBSCRIBER_STRUCT_VCHAN);
  const snapshot = load<u32>(subscriber, SUBSCRIBER_STRUCT_SNAPSHOT);
  let entry = snapshot, sorted = true, previous: u64 = 0, first: u64 = u64.MAX_VALUE, last: u64 = 0;
  for (let start: u32 = 0; start < numSlots; start += 64) {
    for (let word = atomic.load<u64>(wordOf(bits, start)); word; word &= word - 1) {
      const id = start + <u32> ctz(word);
      if (id >= numSlots) break;
      const slot = slotAt(channel, id), ordinal = atomic.load<u64>(slot, SLOT_ORDINAL);
      const messageVchan = <i32> load<i16>(slot, SLOT_VCHAN);
      // Owned: it has its number, and is published later. The bit is of an earlier message.
      if (ordinal == 0 || load<i16>(slot, SLOT_BUFFER_INDEX) == -1 || (atomic.load<u64>(slot) & OWNED)) continue;
      if (messageVchan < -1 || messageVchan > 1022 || !vchansMatch(messageVchan, vchan)) continue;
      if (messageVchan == vchan && !multiplexed && ordinal >= end) continue;
      if (messageVchan != -1 && vchan == -1) store<u32>(subscriber, 1, SUBSCRIBER_STRUCT_MULTIPLEXED);
      if ((load<u64>(deliveredAt(subscriber, id)) & ~AGAIN) == messageKey(ordinal, messageVchan)) {
        forget(subscriber, channel, bits, id, ordinal, messageVchan);
        continue;
      }
      const key = multiplexed ? load<u64>(slot, SLOT_TIMESTAMP) : ordinal;
      store<u64>(entry, key, SNAPSHOT_ENTRY_KEY);
      store<u64>(entry, ordinal, SNAPSHOT_ENTRY_ORDINAL);
      store<u32>(entry, id, SNAPSHOT_ENTRY_SLOT);
      store<i32>(entry, messageVchan, SNAPSHOT_ENTRY_VCHAN);
      entry += SNAPSHOT_ENTRY_BYTES;
      if (key < previous) sorted = false;
      previous = key;
      first = min(first, ordinal);
      last = max(last, ordinal);
    }
  }
  const count = (entry - snapshot) / SNAPSHOT_ENTRY_BYTES, whole = last - first + 1 == count;
  if (!sorted) sortSnapshot(snapshot, count);
  store<u32>(subscriber, count, SUBSCRIBER_STRUCT_COUNT);
  // Who keeps the newest only must see all that there is each time.
  const gapless = !multiplexed && whole && count && !load<u32>(subscriber, SUBSCRIBER_STRUCT_BACKLOG);
  store<u32>(subscriber, gapless ? 1 : 0, SUBSCRIBER_STRUCT_GAPLESS);
  return count == 0 || (whole && first == next);
}

// A message that was delivered, and whose bit a slow publisher set afterwards: clears it, or reliable publishers
// would wait for it for ever. While it is pinned the bit belongs to this message.
function forget(subscriber: u32, channel: u32, bits: u32, id: u32, ordinal: u64, vchan: i32): void {
  const reliable = load<u32>(subscriber, SUBSCRIBER_STRUCT_RELIABLE);
  if (!pin(slotAt(channel, id), reliable, ordinal, vchan)) return;
  clearBit(bits, id);
  unpin(channel, id, reliable, ordinal, vchan, UNREAD);
  store<u32>(subscriber, 1, SUBSCRIBER_STRUCT_MADE_ROOM);
}

@inline
export function beginRead(subscriber: u32): bool {
  store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_DROPS);
  store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_MADE_ROOM);
  store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_NUM_RETIRED);
  if (load<u32>(subscriber, SUBSCRIBER_STRUCT_ACTIVE) >= load<u32>(subscriber, SUBSCRIBER_STRUCT_MAX_ACTIVE)) {
    store<u32>(subscriber, 1, SUBSCRIBER_STRUCT_STARVED);
    return false;
  }
  if (!load<u32>(subscriber, SUBSCRIBER_STRUCT_POPULATED)) populate(subscriber);
  return true;
}

// Reads the oldest unread message. Returns its slot id, with the rest in the subscriber's struct, or an Outcome.
export function readNext(subscriber: u32): i32 {
  if (!beginRead(subscriber)) return OUTCOME_AT_LIMIT;
  const total = ccbOf(load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL)) + CCB_TOTAL_MESSAGES;
  const snapshot = load<u32>(subscriber, SUBSCRIBER_STRUCT_SNAPSHOT);
  let tries: u32 = 0, fresh = true;
  while (true) {
    const cursor = load<u32>(subscriber, SUBSCRIBER_STRUCT_CURSOR);
    const left = cursor < load<u32>(subscriber, SUBSCRIBER_STRUCT_COUNT);
    if (!load<u32>(subscriber, SUBSCRIBER_STRUCT_SNAPSHOT_VALID) ||
      (!(left && load<u32>(subscriber, SUBSCRIBER_STRUCT_GAPLESS)) && fresh &&
        load<u64>(subscriber, SUBSCRIBER_STRUCT_STAMP) != atomic.load<u64>(total))) {
      if (++tries > MAX_TRIES) return OUTCOME_NONE;
      collect(subscriber);
      continue;
    }
    if (!left) return OUTCOME_NONE;
    const backlog = load<u32>(subscriber, SUBSCRIBER_STRUCT_BACKLOG);
    if (backlog) {
      const first = load<u32>(subscriber, SUBSCRIBER_STRUCT_COUNT) - backlog;
      if (<i32> first > <i32> cursor) {
        letGoOlder(subscriber, cursor, first, true);
        store<u32>(subscriber, first, SUBSCRIBER_STRUCT_CURSOR);
        fresh = false; // The slots that this retired are listed in the snapshot.
        continue;
      }
    }
    const outcome = deliver(subscriber, snapshot + cursor * SNAPSHOT_ENTRY_BYTES, true);
    if (outcome == OUTCOME_NEEDS_BUFFER) return outcome;
    store<u32>(subscriber, cursor + 1, SUBSCRIBER_STRUCT_CURSOR);
    if (outcome != OUTCOME_NONE) return outcome;
  }
}

// Leaves the message that `readNext` stopped at for a later read: its buffer cannot be had now.
export function skipEntry(subscriber: u32): void {
  store<u32>(subscriber, load<u32>(subscriber, SUBSCRIBER_STRUCT_CURSOR) + 1, SUBSCRIBER_STRUCT_CURSOR);
}

// Reads the newest message and lets the older ones go. Returns like `readNext`.
export function readNewest(subscriber: u32): i32 {
  if (!beginRead(subscriber)) return OUTCOME_AT_LIMIT;
  const snapshot = load<u32>(subscriber, SUBSCRIBER_STRUCT_SNAPSHOT);
  collect(subscriber);
  const count = load<u32>(subscriber, SUBSCRIBER_STRUCT_COUNT);
  store<u32>(subscriber, count, SUBSCRIBER_STRUCT_CURSOR);
  for (let i = count; i > 0; i--) {
    const outcome = deliver(subscriber, snapshot + (i - 1) * SNAPSHOT_ENTRY_BYTES, false);
    if (outcome == OUTCOME_NONE) continue;
    if (outcome >= 0) letGoOlder(subscriber, 0, i - 1, false);
    else store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_SNAPSHOT_VALID);
    return outcome;
  }
  return OUTCOME_NONE;
}

// Counts older messages of a snapshot as read and released, or as dropped. The ids of the slots that this retired are
// written over the entries done with.
function letGoOlder(subscriber: u32, from: u32, to: u32, dropped: bool): void {
  const channel = load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL), bits = ownBits(subscriber);
  const snapshot = load<u32>(subscriber, SUBSCRIBER_STRUCT_SNAPSHOT);
  const reliable = load<u32>(subscriber, SUBSCRIBER_STRUCT_RELIABLE);
  let numRetired = load<u32>(subscriber, SUBSCRIBER_STRUCT_NUM_RETIRED);
  for (let i = from; i < to; i++) {
    const entry = snapshot + i * SNAPSHOT_ENTRY_BYTES, id = load<u32>(entry, SNAPSHOT_ENTRY_SLOT);
    const ordinal = load<u64>(entry, SNAPSHOT_ENTRY_ORDINAL), vchan = load<i32>(entry, SNAPSHOT_ENTRY_VCHAN);
    const slot = slotAt(channel, id);
    if (!pinExactly(channel, slot, id, reliable, ordinal, vchan)) continue;
    const bridged = load<u32>(slot, SLOT_BRIDGED_SLOT), flags = atomic.load<u32>(slot, SLOT_FLAGS);
    if (dropped && load<u32>(subscriber, SUBSCRIBER_STRUCT_DETECT_DROPS)) {
      noteGap(subscriber, ccbOf(channel), ordinal, vchan);
      if (!(flags & SLOT_FLAG_ACTIVATION)) lose(subscriber, ccbOf(channel), 1);
    }
    claim(subscriber, bits, slot, id, ordinal, vchan);
    const released = unpin(channel, id, reliable, ordinal, vchan, DONE);
    if (released & RELEASE_UNBLOCKS) store<u32>(subscriber, 1, SUBSCRIBER_STRUCT_MADE_ROOM);
    if (!(released & RELEASE_RETIRED) || (flags & SLOT_FLAG_ACTIVATION)) continue;
    store<u32>(snapshot + (numRetired << 2), bridged);
    numRetired++;
  }
  store<u32>(subscriber, numRetired, SUBSCRIBER_STRUCT_NUM_RETIRED);
}

// The refs word has 23 bits of the ordinal only: a message 2^23 later looks the same there.
@inline
function pinExactly(channel: u32, slot: u32, id: u32, reliable: u32, ordinal: u64, vchan: i32): bool {
  if (!pin(slot, reliable, ordinal, vchan)) return false;
  if (load<u64>(slot, SLOT_ORDINAL) == ordinal && <i32> load<i16>(slot, SLOT_VCHAN) == vchan) return true;
  unpin(channel, id, reliable, ordinal, vchan, UNREAD);
  return false;
}

// Notes that a message, which is pinned, is read.
@inline
function claim(subscriber: u32, bits: u32, slot: u32, id: u32, ordinal: u64, vchan: i32): void {
  noteRead(subscriber, bits, id, ordinal, vchan);
  const seen = seenBy(subscriber);
  if ((atomic.load<u32>(slot, SLOT_FLAGS) & seen) != seen) atomic.or<u32>(slot, seen, SLOT_FLAGS);
}

@inline
function noteRead(subscriber: u32, bits: u32, id: u32, ordinal: u64, vchan: i32): void {
  atomic.and<u64>(wordOf(bits, id), ~maskOf(id));
  const delivered = deliveredAt(subscriber, id), key = messageKey(ordinal, vchan);
  store<u64>(delivered, (load<u64>(delivered) & ~AGAIN) == key ? key | AGAIN : key);
  const last = lastOrdinalAt(subscriber, vchan), before = load<u64>(last);
  if (before >= ordinal) return;
  store<u64>(last, ordinal);
  if (ordinal != before + 1 && !load<u32>(subscriber, SUBSCRIBER_STRUCT_SETTLED)) {
    store<u32>(subscriber, 1, SUBSCRIBER_STRUCT_MAY_BE_LATE);
  }
}

@inline
function seenBy(subscriber: u32): u32 {
  const reliable = load<u32>(subscriber, SUBSCRIBER_STRUCT_RELIABLE) != 0;
  return reliable ? SLOT_FLAG_SEEN | SLOT_FLAG_SEEN_BY_RELIABLE : SLOT_FLAG_SEEN;
}

// Takes the message of an entry. Outcome.none: it is gone, or nothing for the user.
export function deliver(subscriber: u32, entry: u32, inOrder: bool): i32 {
  const channel = load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL), bits = ownBits(subscriber);
  const id = load<u32>(entry, SNAPSHOT_ENTRY_SLOT), slot = slotAt(channel, id);
  const ordinal = load<u64>(entry, SNAPSHOT_ENTRY_ORDINAL), vchan = load<i32>(entry, SNAPSHOT_ENTRY_VCHAN);
  const reliable = load<u32>(subscriber, SUBSCRIBER_STRUCT_RELIABLE);
  if (!pinExactly(channel, slot, id, reliable, ordinal, vchan)) return OUTCOME_NONE;
  const buffer = <i32> load<i16>(slot, SLOT_BUFFER_INDEX), size = load<u64>(slot, SLOT_MESSAGE_SIZE);
  const known = buffer >= 0 && <u32> buffer < load<u32>(subscriber, SUBSCRIBER_STRUCT_NUM_BUFFERS);
  const slotBytes = known ? load<u32>(load<u32>(subscriber, SUBSCRIBER_STRUCT_SLOT_BYTES) + (<u32> buffer << 2)) : 0;
  const usable = size != 0 && size <= slotBytes;
  // Of what is read the flags are changed at once: to load them first would fetch their cache line twice.
  const flags = usable ? atomic.or<u32>(slot, seenBy(subscriber), SLOT_FLAGS) : atomic.load<u32>(slot, SLOT_FLAGS);
  const activation = flags & SLOT_FLAG_ACTIVATION;
  if (activation && !load<u32>(subscriber, SUBSCRIBER_STRUCT_PASS_ACTIVATION)) {
    letGo(subscriber, channel, bits, slot, id, ordinal, vchan);
    return OUTCOME_NONE;
  }

  store<u32>(subscriber, id, SUBSCRIBER_STRUCT_SLOT_ID);
  store<i32>(subscriber, buffer, SUBSCRIBER_STRUCT_BUFFER_INDEX);
  store<u32>(subscriber, <u32> min<u64>(size, u32.MAX_VALUE), SUBSCRIBER_STRUCT_MESSAGE_SIZE);
  store<u64>(subscriber, ordinal, SUBSCRIBER_STRUCT_ORDINAL);
  if (!usable) {
    if (slotBytes) letGo(subscriber, channel, bits, slot, id, ordinal, vchan);
    else unpin(channel, id, reliable, ordinal, vchan, UNREAD);
    return slotBytes ? OUTCOME_MALFORMED : OUTCOME_NEEDS_BUFFER;
  }

  if (inOrder && load<u32>(subscriber, SUBSCRIBER_STRUCT_DETECT_DROPS)) {
    countDrops(subscriber, ccbOf(channel), ordinal, vchan);
  }
  setBit(slot + SLOT_OWNERS + BITSET_WORDS, load<u32>(subscriber, SUBSCRIBER_STRUCT_ID));
  noteRead(subscriber, bits, id, ordinal, vchan);
  store<u32>(subscriber, load<u32>(subscriber, SUBSCRIBER_STRUCT_ACTIVE) + 1, SUBSCRIBER_STRUCT_ACTIVE);
  store<u64>(subscriber, load<u64>(slot, SLOT_TIMESTAMP), SUBSCRIBER_STRUCT_TIMESTAMP);
  store<i32>(subscriber, vchan, SUBSCRIBER_STRUCT_MESSAGE_VCHAN);
  store<u32>(subscriber, activation, SUBSCRIBER_STRUCT_ACTIVATION);
  return id;
}

// Counts a message, which is pinned, as read and released without being handed out.
function letGo(subscriber: u32, channel: u32, bits: u32, slot: u32, id: u32, ordinal: u64, vchan: i32): void {
  claim(subscriber, bits, slot, id, ordinal, vchan);
  unpin(channel, id, load<u32>(subscriber, SUBSCRIBER_STRUCT_RELIABLE), ordinal, vchan, DONE);
  store<u32>(subscriber, 1, SUBSCRIBER_STRUCT_MADE_ROOM);
}

// Messages between the one delivered before and this one were overwritten; or, if publications were at work when the
// snapshot was made, they may come late.
@inline
function noteGap(subscriber: u32, ccb: u32, ordinal: u64, vchan: i32): void {
  const last = load<u64>(lastOrdinalAt(subscriber, vchan)), missing = load<u32>(subscriber, SUBSCRIBER_STRUCT_MISSING);
  if (last != 0 && ordinal > last + 1) {
    const gap = <u32> min<u64>(ordinal - last - 1, i32.MAX_VALUE);
    if (load<u32>(subscriber, SUBSCRIBER_STRUCT_SETTLED)) lose(subscriber, ccb, gap);
    else store<u32>(subscriber, missing + gap, SUBSCRIBER_STRUCT_MISSING);
  } else if (ordinal < last && missing) {
    store<u32>(subscriber, missing - 1, SUBSCRIBER_STRUCT_MISSING);
  }
}

@inline
function countDrops(subscriber: u32, ccb: u32, ordinal: u64, vchan: i32): void {
  noteGap(subscriber, ccb, ordinal, vchan);
  store<u32>(subscriber, load<u32>(subscriber, SUBSCRIBER_STRUCT_LOST), SUBSCRIBER_STRUCT_DROPS);
  store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_LOST);
}

function lose(subscriber: u32, ccb: u32, count: u32): void {
  store<u32>(subscriber, load<u32>(subscriber, SUBSCRIBER_STRUCT_LOST) + count, SUBSCRIBER_STRUCT_LOST);
  atomic.add<u32>(ccb, count, CCB_TOTAL_DROPS);
}

// In a settled snapshot, all messages passed over that are not late in it are lost.
function giveUpMissing(subscriber: u32, ccb: u32): void {
  const missing = load<u32>(subscriber, SUBSCRIBER_STRUCT_MISSING);
  if (missing == 0) return;
  const snapshot = load<u32>(subscriber, SUBSCRIBER_STRUCT_SNAPSHOT);
  let late: u32 = 0;
  for (let i: u32 = 0, count = load<u32>(subscriber, SUBSCRIBER_STRUCT_COUNT); i < count; i++) {
    const entry = snapshot + i * SNAPSHOT_ENTRY_BYTES;
    const last = load<u64>(lastOrdinalAt(subscriber, load<i32>(entry, SNAPSHOT_ENTRY_VCHAN)));
    if (load<u64>(entry, SNAPSHOT_ENTRY_ORDINAL) < last) late++;
  }
  if (missing > late) lose(subscriber, ccb, missing - late);
  store<u32>(subscriber, min(missing, late), SUBSCRIBER_STRUCT_MISSING);
}

// Lets a message go. Returns bits of Release.
export function release(subscriber: u32, id: u32): u32 {
  const channel = load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL), slot = slotAt(channel, id);
  const key = load<u64>(deliveredAt(subscriber, id)), vchanField = <u32> key & 0x3FF;
  const flags = atomic.load<u32>(slot, SLOT_FLAGS);
  const owners = slot + SLOT_OWNERS + BITSET_WORDS;
  store<u32>(subscriber, load<u32>(slot, SLOT_BRIDGED_SLOT), SUBSCRIBER_STRUCT_RETIRED_SLOT);
  const relieved = countRelease(subscriber);
  // Not ours any more: the server took this subscriber for gone and gave its messages back.
  if (!clearWasSet(owners, load<u32>(subscriber, SUBSCRIBER_STRUCT_ID))) return relieved;
  const vchan = vchanField == 0x3FF ? -1 : <i32> vchanField;
  const reliable = load<u32>(subscriber, SUBSCRIBER_STRUCT_RELIABLE), how = key & AGAIN ? GONE : DONE;
  const released = unpin(channel, id, reliable, (key & ~AGAIN) >> 10, vchan, how);
  return relieved | (flags & SLOT_FLAG_ACTIVATION ? released & ~RELEASE_RETIRED : released);
}

@inline
function countRelease(subscriber: u32): u32 {
  const active = load<u32>(subscriber, SUBSCRIBER_STRUCT_ACTIVE) - 1;
  store<u32>(subscriber, active, SUBSCRIBER_STRUCT_ACTIVE);
  if (!load<u32>(subscriber, SUBSCRIBER_STRUCT_STARVED) || active >= load<u32>(subscriber, SUBSCRIBER_STRUCT_MAX_ACTIVE)) {
    return RELEASE_RELEASED;
  }
  store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_STARVED);
  return RELEASE_RELEASED | RELEASE_STARVED;
}

// Whether anything was published since the last snapshot.
export function hasNews(subscriber: u32): bool {
  const total = ccbOf(load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL)) + CCB_TOTAL_MESSAGES;
  return load<u64>(subscriber, SUBSCRIBER_STRUCT_STAMP) != atomic.load<u64>(total);
}

// Whether there is a message that a read would find, unless it disappears before. Lets activations go on the way.
export function mayHaveUnread(subscriber: u32): bool {
  if (!beginRead(subscriber)) return false;
  if (!load<u32>(subscriber, SUBSCRIBER_STRUCT_SNAPSHOT_VALID)) collect(subscriber);
  if (toNextMessage(subscriber)) return true;
  if (!hasNews(subscriber)) return false;
  collect(subscriber);
  return toNextMessage(subscriber);
}

// Goes on in the snapshot to the next entry that is for the user. Returns whether there is one.
function toNextMessage(subscriber: u32): bool {
  const channel = load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL), count = load<u32>(subscriber, SUBSCRIBER_STRUCT_COUNT);
  const snapshot = load<u32>(subscriber, SUBSCRIBER_STRUCT_SNAPSHOT);
  while (true) {
    const cursor = load<u32>(subscriber, SUBSCRIBER_STRUCT_CURSOR), entry = snapshot + cursor * SNAPSHOT_ENTRY_BYTES;
    if (cursor >= count) return false;
    const flags = atomic.load<u32>(slotAt(channel, load<u32>(entry, SNAPSHOT_ENTRY_SLOT)), SLOT_FLAGS);
    if (!(flags & SLOT_FLAG_ACTIVATION) || load<u32>(subscriber, SUBSCRIBER_STRUCT_PASS_ACTIVATION)) return true;
    deliver(subscriber, entry, true);
    store<u32>(subscriber, cursor + 1, SUBSCRIBER_STRUCT_CURSOR);
  }
}
