// What the server does to a channel's control blocks when users come and go (specification, sections 5.13, 5.16).

import { clearAll, clearBit, clearWasSet, nextSet, setBit } from "./bitset";
import {
  availableOf,
  ccbOf,
  GONE,
  OWNED,
  slotAt,
  subscribersAddress,
  unpin,
  vchanOfSubscriber,
  vchansMatch,
  withdraw,
} from "./channel";
import {
  BITSET_WORDS,
  CCB_NUM_SUBS,
  CCB_SUBSCRIBER_VCHANS,
  CHANNEL_STRUCT_NUM_SLOTS,
  CHANNEL_STRUCT_QUEUE_INDEX,
  CHANNEL_STRUCT_RETIRED,
  CHANNEL_STRUCT_SLOT_WORDS,
  LIMIT_USERS,
  QUEUE_INDEX_ACTIVE_PUBLISHERS,
  RELEASE_RETIRED,
  SLOT_BRIDGED_SLOT,
  SLOT_BUFFER_INDEX,
  SLOT_FLAG_ACTIVATION,
  SLOT_FLAGS,
  SLOT_ORDINAL,
  SLOT_OWNERS,
  SLOT_VCHAN,
  SNAPSHOT_ENTRY_BYTES,
  SNAPSHOT_ENTRY_KEY,
  SNAPSHOT_ENTRY_ORDINAL,
  SNAPSHOT_ENTRY_SLOT,
} from "./offsets";
import { markRefused, push } from "./queue";
import { sortSnapshot } from "./snapshot";

// Lets publishers know of a subscriber. A new one gets the messages that are there. `scratch` has room for a
// SnapshotEntry per slot, and for a u32 per user.
export function registerSubscriber(channel: u32, id: u32, vchan: i32, isNew: u32, scratch: u32): void {
  store<i16>(ccbOf(channel) + (id << 1), <i16> vchan, CCB_SUBSCRIBER_VCHANS);
  if (isNew) clearAll(availableOf(channel, id), load<u32>(channel, CHANNEL_STRUCT_SLOT_WORDS));
  setBit(subscribersAddress(channel), id);
  if (isNew) seed(channel, id, vchan, scratch);
  countSubscribers(channel, scratch);
}

// Makes the messages that are there available to a new subscriber, oldest first.
function seed(channel: u32, id: u32, vchan: i32, scratch: u32): void {
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS), bits = availableOf(channel, id);
  let count: u32 = 0;
  for (let slotId: u32 = 0; slotId < numSlots; slotId++) {
    const slot = slotAt(channel, slotId), refs = atomic.load<u64>(slot), ordinal = load<u64>(slot, SLOT_ORDINAL);
    if ((refs & OWNED) || ordinal == 0 || load<i16>(slot, SLOT_BUFFER_INDEX) == -1) continue;
    if (!vchansMatch(<i32> load<i16>(slot, SLOT_VCHAN), vchan)) continue;
    const entry = scratch + count++ * SNAPSHOT_ENTRY_BYTES;
    store<u64>(entry, ordinal, SNAPSHOT_ENTRY_KEY);
    store<u64>(entry, ordinal, SNAPSHOT_ENTRY_ORDINAL);
    store<u64>(entry, slotId, SNAPSHOT_ENTRY_SLOT);
  }
  sortSnapshot(scratch, count);
  for (let i: u32 = 0; i < count; i++) {
    const entry = scratch + i * SNAPSHOT_ENTRY_BYTES, slotId = load<u32>(entry, SNAPSHOT_ENTRY_SLOT);
    setBit(bits, slotId);
    if (!push(channel, id, slotId, load<u64>(entry, SNAPSHOT_ENTRY_ORDINAL))) markRefused(channel, id);
  }
}

// Counts the subscribers of each virtual channel anew. Only numbers that change are stored: others read them.
function countSubscribers(channel: u32, scratch: u32): void {
  memory.fill(scratch, 0, LIMIT_USERS << 2);
  const subscribers = subscribersAddress(channel);
  for (let id = nextSet(subscribers, LIMIT_USERS, 0); id >= 0; id = nextSet(subscribers, LIMIT_USERS, id + 1)) {
    const vchan = vchanOfSubscriber(channel, id);
    if (vchan < -1 || vchan > 1022) continue;
    const counter = scratch + (<u32> (vchan + 1) << 2);
    store<i32>(counter, load<i32>(counter) + 1);
  }
  const ccb = ccbOf(channel);
  for (let offset: u32 = 0; offset < LIMIT_USERS << 2; offset += 4) {
    const count = load<i32>(scratch + offset);
    if (atomic.load<i32>(ccb + offset, CCB_NUM_SUBS) != count) atomic.store<i32>(ccb + offset, count, CCB_NUM_SUBS);
  }
}

// Takes a subscriber out, and gives back the messages it held. Writes the ids of the slots that this retired to
// `scratch` (a u32 per slot, or per user if that is more) and returns how many.
//
// The count of releases stays as it is: the reference counts the removal as a release, and so takes slots for
// retired that one of those who stay has not read.
export function removeSubscriber(channel: u32, id: u32, reliable: u32, scratch: u32): u32 {
  clearBit(subscribersAddress(channel), id);
  countSubscribers(channel, scratch);
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  let numRetired: u32 = 0;
  for (let slotId: u32 = 0; slotId < numSlots; slotId++) {
    const slot = slotAt(channel, slotId);
    const bridged = load<u32>(slot, SLOT_BRIDGED_SLOT), flags = atomic.load<u32>(slot, SLOT_FLAGS);
    if (!clearWasSet(slot + SLOT_OWNERS + BITSET_WORDS, id)) continue;
    const released = unpin(channel, slotId, reliable, 0, -1, GONE);
    if (!(released & RELEASE_RETIRED) || (flags & SLOT_FLAG_ACTIVATION)) continue;
    store<u32>(scratch + (numRetired << 2), bridged);
    numRetired++;
  }
  return numRetired;
}

// Takes back the slots that a publisher owned. They go to the retired ones, where every publisher looks; the
// reference leaves them to be found by scans.
export function removePublisher(channel: u32, id: u32): void {
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  const mine = OWNED | <u64> id;
  for (let slotId: u32 = 0; slotId < numSlots; slotId++) {
    const slot = slotAt(channel, slotId);
    if (atomic.load<u64>(slot) != mine) continue;
    store<u64>(slot, 0, SLOT_ORDINAL);
    // Before the slot is anybody's again: the bits of a message that is published in it must stay.
    withdraw(channel, slotId, -1);
    atomic.store<u64>(slot, 0);
    setBit(load<u32>(channel, CHANNEL_STRUCT_RETIRED), slotId);
  }
}

// A publisher that is dead is not among the queues any more.
export function clearHazard(channel: u32, publisher: u32): void {
  atomic.store<u32>(
    load<u32>(channel, CHANNEL_STRUCT_QUEUE_INDEX) + (publisher << 2),
    0,
    QUEUE_INDEX_ACTIVE_PUBLISHERS,
  );
}
