// What all users of a channel need: its parts, its subscribers, and the reference counts of its slots.

import { setBit } from "./bitset";
import {
  BITSET_ID_WORDS,
  BITSET_WORDS,
  CCB_NUM_SUBS,
  CCB_SUBSCRIBER_VCHANS,
  CCB_SUBSCRIBERS,
  CHANNEL_STRUCT_AVAILABLE,
  CHANNEL_STRUCT_AVAILABLE_STRIDE,
  CHANNEL_STRUCT_CCB,
  CHANNEL_STRUCT_QUEUE_INDEX,
  CHANNEL_STRUCT_RETIRED,
  CHANNEL_STRUCT_SLOTS,
  LIMIT_USERS,
  QUEUE_INDEX_ACTIVE_PUBLISHERS,
  RELEASE_RELEASED,
  RELEASE_RETIRED,
  RELEASE_UNBLOCKS,
  SLOT_BYTES,
  SLOT_MARK_ANNOUNCED,
  SLOT_MARK_ORDINAL_SHIFT,
} from "./offsets";

export const OWNED: u64 = 0x8000000000000000;
export const COUNT: u64 = 0x3FF;
export const RELIABLE_COUNT: u64 = 0x3FF << 10;
export const BOTH_COUNTS: u64 = 0xFFFFF;
export const RETIRED_COUNT: u64 = 0x3FF << 20;
export const ANY_VCHAN: u32 = 0x3FF;
export const ORDINAL_MASK: u64 = 0x7FFFFF;

@inline
export function ccbOf(channel: u32): u32 {
  return load<u32>(channel, CHANNEL_STRUCT_CCB);
}

@inline
export function slotAt(channel: u32, id: u32): u32 {
  return load<u32>(channel, CHANNEL_STRUCT_SLOTS) + SLOT_BYTES * id;
}

// The words of a subscriber's available-slots bitset.
@inline
export function availableOf(channel: u32, subscriber: u32): u32 {
  return load<u32>(channel, CHANNEL_STRUCT_AVAILABLE) +
    load<u32>(channel, CHANNEL_STRUCT_AVAILABLE_STRIDE) * subscriber + BITSET_WORDS;
}

// A word of the bitset of subscribers. i < BITSET_ID_WORDS.
@inline
export function subscriberWord(channel: u32, i: u32): u64 {
  return atomic.load<u64>(ccbOf(channel) + (i << 3), CCB_SUBSCRIBERS + BITSET_WORDS);
}

// How many words of the bitset of subscribers there are to look at: hardly a channel has more than 64 of them. Plain
// loads, which follow an atomic operation each time: fifteen atomic ones take a tenth of a publication.
@inline
export function numSubscriberWords(channel: u32): u32 {
  const words = subscribersAddress(channel);
  const others = load<u64>(words, 8) | load<u64>(words, 16) | load<u64>(words, 24) | load<u64>(words, 32) |
    load<u64>(words, 40) | load<u64>(words, 48) | load<u64>(words, 56) | load<u64>(words, 64) | load<u64>(words, 72) |
    load<u64>(words, 80) | load<u64>(words, 88) | load<u64>(words, 96) | load<u64>(words, 104) |
    load<u64>(words, 112) | load<u64>(words, 120);
  return others ? BITSET_ID_WORDS : 1;
}

@inline
export function subscribersAddress(channel: u32): u32 {
  return ccbOf(channel) + CCB_SUBSCRIBERS + BITSET_WORDS;
}

@inline
export function vchanOfSubscriber(channel: u32, subscriber: u32): i32 {
  return <i32> load<i16>(ccbOf(channel) + (subscriber << 1), CCB_SUBSCRIBER_VCHANS);
}

// -1 stands for the multiplexer itself, which belongs to all of its virtual channels.
@inline
export function vchansMatch(a: i32, b: i32): bool {
  return a == b || a == -1 || b == -1;
}

@inline
export function buildRefs(ordinal: u64, vchan: i32): u64 {
  return ((ordinal & ORDINAL_MASK) << 40) | (ordinal ? (<u64> (<u32> vchan & ANY_VCHAN)) << 30 : 0);
}

@inline
export function refsOrdinal(refs: u64): u64 {
  return (refs >> 40) & ORDINAL_MASK;
}

@inline
export function refsVchan(refs: u64): i32 {
  const field = <u32> (refs >> 30) & ANY_VCHAN;
  return field == ANY_VCHAN ? -1 : <i32> field;
}

// What a slot's flags carry above the reference's, once its message is announced.
@inline
export function announcedMark(ordinal: u64): u32 {
  return SLOT_MARK_ANNOUNCED | (<u32> (ordinal & ORDINAL_MASK) << SLOT_MARK_ORDINAL_SHIFT);
}

// Subscribers of a virtual channel and of its multiplexer together.
@inline
export function numSubscribers(channel: u32, vchan: i32): i32 {
  const ccb = ccbOf(channel);
  const direct = atomic.load<i32>(ccb, CCB_NUM_SUBS);
  return vchan == -1 ? direct : direct + atomic.load<i32>(ccb + (<u32> (vchan + 1) << 2), CCB_NUM_SUBS);
}

// Whether a slot still holds a message, as far as 23 bits of its ordinal tell. Ordinal 0 names none: such a call
// means whatever is there.
@inline
function holds(refs: u64, ordinal: u64, vchan: i32): bool {
  if (refs & OWNED) return false;
  const there = refsOrdinal(refs), wanted = ordinal & ORDINAL_MASK;
  return there == 0 || wanted == 0 || (there == wanted && refsVchan(refs) == vchan);
}

// Takes a reference to a message (section 5.1). Fails if the slot holds another one by now.
@inline
export function pin(slot: u32, reliable: u32, ordinal: u64, vchan: i32): bool {
  while (true) {
    const refs = atomic.load<u64>(slot);
    // One holder more than the field can count would be a reliable one.
    if (!holds(refs, ordinal, vchan) || (refs & COUNT) == COUNT) return false;
    if (atomic.cmpxchg<u64>(slot, refs, refs + 1 + (<u64> reliable << 10)) == refs) return true;
  }
}

// What becomes of the reference given back.
export const UNREAD: u32 = 0; // the message stays unread
export const DONE: u32 = 1; // the subscriber is done with it: counts as a release
export const GONE: u32 = 2; // the subscriber is gone: it no longer counts, in either number

// Gives a reference back (section 5.1). Returns bits of Release: the slot is retired once all present subscribers
// have released it.
export function unpin(
  channel: u32,
  id: u32,
  reliable: u32,
  ordinal: u64,
  vchan: i32,
  how: u32,
): u32 {
  const slot = slotAt(channel, id);
  while (true) {
    const refs = atomic.load<u64>(slot);
    if (!holds(refs, ordinal, vchan) || (refs & COUNT) == 0) return 0;
    let next = refs - 1;
    if (reliable && (refs & RELIABLE_COUNT)) next -= 1 << 10;
    if (how == DONE && (refs & RETIRED_COUNT) != RETIRED_COUNT) next += 1 << 20;
    if (atomic.cmpxchg<u64>(slot, refs, next) != refs) continue;
    // Not only when nobody holds it: an unreliable holder does not wake publishers, so this one must.
    const released = next & RELIABLE_COUNT ? RELEASE_RELEASED : RELEASE_RELEASED | RELEASE_UNBLOCKS;
    if (next & BOTH_COUNTS || how == UNREAD) return released;
    if (<i32> ((next & RETIRED_COUNT) >> 20) < numSubscribers(channel, refsVchan(next))) return released;
    setBit(load<u32>(channel, CHANNEL_STRUCT_RETIRED), id);
    return released | RELEASE_RETIRED;
  }
}

// Whether no publisher but `except` is publishing: from before it numbers a message until all know of it, it is among
// the queues. (A C++ publisher enters them later: a few instructions after it has made the message visible.)
export function nobodyPublishes(channel: u32, except: u32): bool {
  const active = load<u32>(channel, CHANNEL_STRUCT_QUEUE_INDEX) + QUEUE_INDEX_ACTIVE_PUBLISHERS;
  for (let id: u32 = 0; id < LIMIT_USERS; id++) {
    if (id != except && atomic.load<u32>(active + (id << 2))) return false;
  }
  return true;
}

// Takes a slot out of the available slots of every subscriber of a virtual channel.
@inline
export function withdraw(channel: u32, id: u32, vchan: i32): void {
  for (let i: u32 = 0, numWords = numSubscriberWords(channel); i < numWords; i++) {
    let word = subscriberWord(channel, i);
    while (word) {
      const subscriber = (i << 6) + <u32> ctz(word);
      word &= word - 1;
      if (!vchansMatch(vchanOfSubscriber(channel, subscriber), vchan)) continue;
      const address = availableOf(channel, subscriber) + ((id >> 6) << 3), mask = (<u64> 1) << (id & 63);
      if (atomic.load<u64>(address) & mask) atomic.and<u64>(address, ~mask);
    }
  }
}
