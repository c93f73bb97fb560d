// Publication (specification, section 5.5).

import { setBit } from "./bitset";
import {
  announcedMark,
  availableOf,
  buildRefs,
  ccbOf,
  numSubscriberWords,
  OWNED,
  subscriberWord,
  vchanOfSubscriber,
  vchansMatch,
  withdraw,
} from "./channel";
import { claimUnreliable } from "./claim";
import { beginRinging } from "./doorbell";
import {
  BITSET_ID_WORDS,
  BITSET_WORDS,
  CCB_ACTIVATION_TRACKER,
  CCB_MAX_MESSAGE_SIZE,
  CCB_ORDINALS,
  CCB_TOTAL_BYTES,
  CCB_TOTAL_MESSAGES,
  CHANNEL_STRUCT_COUNTERS,
  CHANNEL_STRUCT_QUEUE_ARENA_BYTES,
  CHANNEL_STRUCT_QUEUE_INDEX,
  CHANNEL_STRUCT_RETIRED,
  PREFIX_FLAG_ACTIVATION,
  PREFIX_FLAG_CROSS_MACHINE,
  PREFIX_FLAGS,
  PREFIX_MESSAGE_SIZE,
  PREFIX_ORDINAL,
  PREFIX_SLOT,
  PREFIX_TIMESTAMP,
  PREFIX_VCHAN,
  PUBLISHER_STRUCT_CHANNEL,
  PUBLISHER_STRUCT_ID,
  PUBLISHER_STRUCT_ORDINAL,
  PUBLISHER_STRUCT_PREFIX,
  PUBLISHER_STRUCT_REFUSED,
  PUBLISHER_STRUCT_RELIABLE,
  PUBLISHER_STRUCT_RINGER,
  PUBLISHER_STRUCT_SLOT,
  PUBLISHER_STRUCT_SLOT_ID,
  PUBLISHER_STRUCT_TIME,
  PUBLISHER_STRUCT_TUNNEL,
  PUBLISHER_STRUCT_VCHAN,
  QUEUE_INDEX_ACTIVE_PUBLISHERS,
  SCB_NUM_RELIABLE_SUBS,
  SLOT_BRIDGED_SLOT,
  SLOT_FLAG_ACTIVATION,
  SLOT_FLAGS,
  SLOT_MARK_FLAGS,
  SLOT_MESSAGE_SIZE,
  SLOT_ORDINAL,
  SLOT_TIMESTAMP,
} from "./offsets";
import { markRefused, push } from "./queue";

// First half: numbers the message and makes its prefix, for the caller to copy in front of the payload.
export function beginPublish(publisher: u32, size: u32, activation: u32): void {
  const channel = load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL), slot = load<u32>(publisher, PUBLISHER_STRUCT_SLOT);
  const id = load<u32>(publisher, PUBLISHER_STRUCT_SLOT_ID), vchan = load<i32>(publisher, PUBLISHER_STRUCT_VCHAN);
  // Earlier than section 5.5 has it: others can tell that a message they lack is still to come.
  atomic.add<u32>(activeOf(publisher, channel), 1);
  const ordinal = atomic.add<u64>(ccbOf(channel) + (<u32> (vchan + 1) << 3), 1, CCB_ORDINALS);
  const time = publisher + PUBLISHER_STRUCT_TIME, timestamp = load<u64>(time) * 1000000000 + load<u64>(time, 8);
  store<u64>(publisher, ordinal, PUBLISHER_STRUCT_ORDINAL);
  store<u64>(slot, ordinal, SLOT_ORDINAL);
  store<u64>(slot, size, SLOT_MESSAGE_SIZE);
  store<u64>(slot, timestamp, SLOT_TIMESTAMP);
  store<u32>(slot, activation ? SLOT_FLAG_ACTIVATION : 0, SLOT_FLAGS);
  store<u32>(slot, id, SLOT_BRIDGED_SLOT);

  const prefix = publisher + PUBLISHER_STRUCT_PREFIX;
  let flags: u32 = load<u32>(publisher, PUBLISHER_STRUCT_TUNNEL) ? PREFIX_FLAG_CROSS_MACHINE : 0;
  if (activation) flags |= PREFIX_FLAG_ACTIVATION;
  store<u32>(prefix, id, PREFIX_SLOT);
  store<u64>(prefix, size, PREFIX_MESSAGE_SIZE);
  store<u64>(prefix, ordinal, PREFIX_ORDINAL);
  store<u64>(prefix, timestamp, PREFIX_TIMESTAMP);
  store<u64>(prefix, flags, PREFIX_FLAGS);
  store<i32>(prefix, vchan, PREFIX_VCHAN);
  if (activation) setBit(ccbOf(channel) + CCB_ACTIVATION_TRACKER + BITSET_WORDS, vchan + 1);
}

// Second half: hands the message to the subscribers, and takes the next slot where the publisher is unreliable.
// Each subscriber's bit is set before total_messages grows: subscribers rely on that. They look there again and again, so
// what nobody waits for comes later. Returns the first subscriber to be woken, as `beginRinging` does; -1 without a ringer.
export function endPublish(publisher: u32, size: u32, activation: u32): i32 {
  const channel = load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL), slot = load<u32>(publisher, PUBLISHER_STRUCT_SLOT);
  const vchan = load<i32>(publisher, PUBLISHER_STRUCT_VCHAN), ccb = ccbOf(channel);
  const ordinal = load<u64>(publisher, PUBLISHER_STRUCT_ORDINAL);
  atomic.store<u64>(slot, buildRefs(ordinal, vchan));
  const refused = announce(publisher, channel, vchan, ordinal);
  markAnnounced(channel, slot, ordinal);
  atomic.add<u64>(ccb, 1, CCB_TOTAL_MESSAGES);
  if (!activation) {
    atomic.add<u64>(ccb, size, CCB_TOTAL_BYTES);
    if (atomic.load<u32>(ccb, CCB_MAX_MESSAGE_SIZE) < size) store<u32>(ccb, size, CCB_MAX_MESSAGE_SIZE);
  }
  if (refused) reportRefused(publisher, channel, refused);
  leaveQueues(activeOf(publisher, channel));

  if (load<u32>(publisher, PUBLISHER_STRUCT_RELIABLE)) store<u32>(publisher, 0, PUBLISHER_STRUCT_SLOT);
  else claimUnreliable(publisher);
  const ringer = load<u32>(publisher, PUBLISHER_STRUCT_RINGER);
  return ringer ? beginRinging(ringer) : -1;
}

// The publisher's count of publications at work.
@inline
function activeOf(publisher: u32, channel: u32): u32 {
  return load<u32>(channel, CHANNEL_STRUCT_QUEUE_INDEX) + QUEUE_INDEX_ACTIVE_PUBLISHERS +
    (load<u32>(publisher, PUBLISHER_STRUCT_ID) << 2);
}

// Marks the message as announced, for reliable publishers of ours, which go by it where there are reliable
// subscribers. The slot may hold another one already: then the mark names the wrong ordinal, and is none.
@inline
function markAnnounced(channel: u32, slot: u32, ordinal: u64): void {
  if (load<u16>(load<u32>(channel, CHANNEL_STRUCT_COUNTERS), SCB_NUM_RELIABLE_SUBS) == 0) return;
  while (true) {
    const flags = atomic.load<u32>(slot, SLOT_FLAGS), marked = (flags & SLOT_MARK_FLAGS) | announcedMark(ordinal);
    if (atomic.cmpxchg<u32>(slot, flags, marked, SLOT_FLAGS) == flags) return;
  }
}

// Sets the slot's bit for each subscriber, and puts it into the queues. Returns the words of `refused` that have bits,
// for queues that did not take it.
@inline
function announce(publisher: u32, channel: u32, vchan: i32, ordinal: u64): u32 {
  const id = load<u32>(publisher, PUBLISHER_STRUCT_SLOT_ID);
  const queues = load<u32>(channel, CHANNEL_STRUCT_QUEUE_ARENA_BYTES) != 0;
  let refused: u32 = 0;
  for (let i: u32 = 0, numWords = numSubscriberWords(channel); i < numWords; i++) {
    let word = subscriberWord(channel, i);
    while (word) {
      const subscriber = (i << 6) + <u32> ctz(word);
      word &= word - 1;
      if (!vchansMatch(vchanOfSubscriber(channel, subscriber), vchan)) continue;
      setBit(availableOf(channel, subscriber), id);
      if (!queues || push(channel, subscriber, id, ordinal)) continue;
      const bits = publisher + PUBLISHER_STRUCT_REFUSED + (i << 3);
      store<u64>(bits, load<u64>(bits) | (<u64> 1) << (subscriber & 63));
      refused |= 1 << i;
    }
  }
  return refused;
}

function reportRefused(publisher: u32, channel: u32, words: u32): void {
  while (words) {
    const i = ctz(words), bits = publisher + PUBLISHER_STRUCT_REFUSED + (i << 3);
    words &= words - 1;
    let word = load<u64>(bits);
    store<u64>(bits, 0);
    while (word) {
      markRefused(channel, (i << 6) + <u32> ctz(word));
      word &= word - 1;
    }
  }
}

// The server sets the count to 0 when it takes the publisher for dead: never go below.
@inline
function leaveQueues(active: u32): void {
  while (true) {
    const count = atomic.load<u32>(active);
    if (count == 0 || atomic.cmpxchg<u32>(active, count, count - 1) == count) return;
  }
}

// Gives back a slot that was claimed and not published (section 5.12).
export function abandonSlot(publisher: u32): void {
  const channel = load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL), slot = load<u32>(publisher, PUBLISHER_STRUCT_SLOT);
  const id = load<u32>(publisher, PUBLISHER_STRUCT_SLOT_ID);
  store<u32>(publisher, 0, PUBLISHER_STRUCT_SLOT);
  const mine = OWNED | <u64> load<u32>(publisher, PUBLISHER_STRUCT_ID);
  if (!slot || atomic.load<u64>(slot) != mine) return;
  store<u64>(slot, 0, SLOT_ORDINAL);
  store<u64>(slot, 0, SLOT_TIMESTAMP);
  withdraw(channel, id, load<i32>(publisher, PUBLISHER_STRUCT_VCHAN));
  if (atomic.cmpxchg<u64>(slot, mine, 0) == mine) setBit(load<u32>(channel, CHANNEL_STRUCT_RETIRED), id);
}
