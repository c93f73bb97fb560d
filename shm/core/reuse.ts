// Whether a reliable publisher may take the slot of a message (in place of the conditions of specification, section 5.4).

import { isSet } from "./bitset";
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
  RETIRED_COUNT,
  slotAt,
  subscriberWord,
  vchanOfSubscriber,
  vchansMatch,
} from "./channel";
import {
  BITSET_ID_WORDS,
  CCB_ORDINALS,
  CCB_TOTAL_MESSAGES,
  CHANNEL_STRUCT_COUNTERS,
  CHANNEL_STRUCT_NUM_SLOTS,
  PUBLISHER_STRUCT_BEFORE,
  PUBLISHER_STRUCT_CHANNEL,
  PUBLISHER_STRUCT_DOUBTS,
  PUBLISHER_STRUCT_EPOCH_NUM_SUBS,
  PUBLISHER_STRUCT_EPOCH_STAMP,
  PUBLISHER_STRUCT_EPOCH_SUBSCRIBERS,
  PUBLISHER_STRUCT_EXEMPT,
  PUBLISHER_STRUCT_EXEMPT_KNOWN,
  PUBLISHER_STRUCT_EXEMPT_STAMP,
  PUBLISHER_STRUCT_ID,
  PUBLISHER_STRUCT_LOOKED,
  PUBLISHER_STRUCT_SINCE,
  PUBLISHER_STRUCT_TRUST_STAMP,
  PUBLISHER_STRUCT_TRUSTED,
  PUBLISHER_STRUCT_TRUSTS_ALL,
  PUBLISHER_STRUCT_VCHAN,
  SCB_NUM_RELIABLE_SUBS,
  SCB_NUM_SUB_UPDATES,
  SCB_NUM_SUBS,
  SLOT_FLAG_ACTIVATION,
  SLOT_FLAG_SEEN,
  SLOT_FLAG_SEEN_BY_RELIABLE,
  SLOT_FLAGS,
  SLOT_MARK_FLAGS,
  SLOT_ORDINAL,
  SLOT_VCHAN,
} from "./offsets";

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
//   5. A subscriber of the reference clears all its bits for a moment during its first read, and sets them again. So a
//      bit that is clear counts only for who is trusted: for ours, which never do that, if they say that they are
//      ours; for others, once there is proof (`allHaveRead`) that all have read a message that was published after
//      the last of them came: nobody reads for the first time twice. Messages from before that need no proof: nobody who
//      came later was promised them, and all others were trusted. Where nothing else does, time ends the doubt
//      (`endDoubts`).
//
// A retired slot is checked like any other: its count may contain releases of subscribers that have left since,
// and a subscriber that came later was given the message too. A subscriber that died holds nobody up once the
// server has taken it out of the bitset of subscribers and given back what it held. Everything is looked at after
// `refs` were read, and the slot is taken only if these are the same still: what was seen belongs to the message
// that is overwritten. C++ peers see nothing unusual: they set bits and flags as always. (A C++ publisher still goes by
// the flag.)
export function mayReuse(publisher: u32, channel: u32, id: u32, refs: u64): bool {
  if (refs & (OWNED | BOTH_COUNTS)) return false;
  const slot = slotAt(channel, id), counters = load<u32>(channel, CHANNEL_STRUCT_COUNTERS);
  const numReliable = load<u16>(counters, SCB_NUM_RELIABLE_SUBS), ordinal = load<u64>(slot, SLOT_ORDINAL);
  if (numReliable == 0 || ordinal == 0) return true;

  const stamp = <u32> load<u16>(counters, SCB_NUM_SUB_UPDATES);
  const told = load<u32>(publisher, PUBLISHER_STRUCT_EXEMPT_KNOWN) != 0 &&
    load<u32>(publisher, PUBLISHER_STRUCT_EXEMPT_STAMP) == stamp;
  const announced = isAnnounced(publisher, channel, slot, ordinal);
  let concern = concernOf(publisher, channel, id, refsVchan(refs), told, stamp);
  if (concern == NOBODY) return true;
  if (concern == DOUBTED && allHaveRead(publisher, channel, slot, refs, ordinal, told, stamp)) return true;
  if (concern == UNREAD) {
    const known = told || load<u16>(counters, SCB_NUM_SUBS) <= numReliable;
    const seen = (atomic.load<u32>(slot, SLOT_FLAGS) & SLOT_FLAG_SEEN_BY_RELIABLE) != 0;
    return !known && numReliable == 1 && seen;
  }
  if (!announced) {
    if (!isOver(publisher, channel, slot, ordinal)) return false;
    concern = concernOf(publisher, channel, id, refsVchan(refs), told, stamp);
    if (concern == UNREAD) return false;
  }
  if (concern != DOUBTED || isFromBefore(publisher, slot, ordinal)) return true;
  store<u32>(publisher, 1, PUBLISHER_STRUCT_DOUBTS);
  return false;
}

// Whom a message concerns still.
const NOBODY: u32 = 0; // it is for nobody
const READ: u32 = 1; // it is for somebody, and nobody has it unread
const DOUBTED: u32 = 2; // nobody's bit is set, but some are not to be trusted
const UNREAD: u32 = 3;

function concernOf(publisher: u32, channel: u32, id: u32, vchan: i32, told: bool, stamp: u32): u32 {
  const trusts = load<u32>(publisher, PUBLISHER_STRUCT_TRUST_STAMP) == stamp;
  let concern = NOBODY;
  for (let i: u32 = 0, numWords = numSubscriberWords(channel); i < numWords; i++) {
    let word = subscriberWord(channel, i);
    if (told) word &= ~load<u64>(publisher + (i << 3), PUBLISHER_STRUCT_EXEMPT);
    const trusted = trusts ? load<u64>(publisher + (i << 3), PUBLISHER_STRUCT_TRUSTED) : 0;
    while (word) {
      const bit = word & (0 - word), subscriber = (i << 6) + <u32> ctz(word);
      word ^= bit;
      if (!vchansMatch(vchanOfSubscriber(channel, subscriber), vchan)) continue;
      if (isSet(availableOf(channel, subscriber), id)) return UNREAD;
      concern = max(concern, trusted & bit ? READ : DOUBTED);
    }
  }
  return concern;
}

// Notes when subscribers have come or gone. Returns how many there are.
export function noteSubscribers(publisher: u32, channel: u32, vchan: i32): i32 {
  const ordinals = ccbOf(channel) + (<u32> (vchan + 1) << 3), next = atomic.load<u64>(ordinals, CCB_ORDINALS);
  const numSubs = numSubscribers(channel, vchan), stamp = stampOf(channel);
  if (!load<u64>(publisher, PUBLISHER_STRUCT_SINCE) || load<u32>(publisher, PUBLISHER_STRUCT_EPOCH_STAMP) != stamp) {
    store<u64>(publisher, load<u64>(publisher, PUBLISHER_STRUCT_LOOKED), PUBLISHER_STRUCT_BEFORE);
    store<u32>(publisher, stamp, PUBLISHER_STRUCT_EPOCH_STAMP);
    store<u32>(publisher, countAll(channel), PUBLISHER_STRUCT_EPOCH_SUBSCRIBERS);
    store<i32>(publisher, numSubs, PUBLISHER_STRUCT_EPOCH_NUM_SUBS);
    store<u32>(publisher, 0, PUBLISHER_STRUCT_TRUSTS_ALL);
    store<u64>(publisher, atomic.load<u64>(ordinals, CCB_ORDINALS), PUBLISHER_STRUCT_SINCE);
    return numSubs;
  }
  if (!load<u32>(publisher, PUBLISHER_STRUCT_TRUSTS_ALL) && trustsAll(publisher, channel, stamp)) {
    store<u32>(publisher, 1, PUBLISHER_STRUCT_TRUSTS_ALL);
  }
  // Of those who come just now, num_subs tells first.
  if (load<u32>(publisher, PUBLISHER_STRUCT_TRUSTS_ALL) && load<i32>(publisher, PUBLISHER_STRUCT_EPOCH_NUM_SUBS) == numSubs) {
    store<u64>(publisher, next, PUBLISHER_STRUCT_LOOKED);
  }
  return numSubs;
}

// Whether no subscriber is doubted.
function trustsAll(publisher: u32, channel: u32, stamp: u32): bool {
  if (load<u32>(publisher, PUBLISHER_STRUCT_TRUST_STAMP) != stamp) return false;
  for (let i: u32 = 0; i < BITSET_ID_WORDS; i++) {
    if (subscriberWord(channel, i) & ~load<u64>(publisher + (i << 3), PUBLISHER_STRUCT_TRUSTED)) return false;
  }
  return true;
}

@inline
function stampOf(channel: u32): u32 {
  return load<u16>(load<u32>(channel, CHANNEL_STRUCT_COUNTERS), SCB_NUM_SUB_UPDATES);
}

function countAll(channel: u32): u32 {
  let count: u64 = 0;
  for (let i: u32 = 0; i < BITSET_ID_WORDS; i++) count += popcnt(subscriberWord(channel, i));
  return <u32> count;
}

// Whom the messages of a virtual channel are for, but for those of the bitset at `exempt`, if it is not 0.
function countConcerned(channel: u32, vchan: i32, exempt: u32): u32 {
  let count: u32 = 0;
  for (let i: u32 = 0; i < BITSET_ID_WORDS; i++) {
    let word = subscriberWord(channel, i);
    if (exempt) word &= ~load<u64>(exempt + (i << 3));
    while (word) {
      if (vchansMatch(vchanOfSubscriber(channel, (i << 6) + <u32> ctz(word)), vchan)) count++;
      word &= word - 1;
    }
  }
  return count;
}

// Whether a message was numbered before anybody came who is doubted.
function isFromBefore(publisher: u32, slot: u32, ordinal: u64): bool {
  return <i32> load<i16>(slot, SLOT_VCHAN) == load<i32>(publisher, PUBLISHER_STRUCT_VCHAN) &&
    ordinal < load<u64>(publisher, PUBLISHER_STRUCT_BEFORE);
}

// Whether there is proof that all whom it concerns have read a message of which no bit is set: it has been released
// as often as there are subscribers, none of whom came or went since it was published; or the only one who counts is
// reliable, and the flag says that one such has read it. All are trusted then. Of an activation, which carries nothing,
// the flag is enough.
function allHaveRead(
  publisher: u32,
  channel: u32,
  slot: u32,
  refs: u64,
  ordinal: u64,
  told: bool,
  stamp: u32,
): bool {
  if ((refs & RETIRED_COUNT) == 0) return false;
  const flags = atomic.load<u32>(slot, SLOT_FLAGS), seen = (flags & SLOT_FLAG_SEEN_BY_RELIABLE) != 0;
  if (seen && (flags & SLOT_FLAG_ACTIVATION)) return true;
  if (load<u32>(publisher, PUBLISHER_STRUCT_EPOCH_STAMP) != stamp) return false;
  if (<i32> load<i16>(slot, SLOT_VCHAN) != load<i32>(publisher, PUBLISHER_STRUCT_VCHAN)) return false;
  if (ordinal < load<u64>(publisher, PUBLISHER_STRUCT_SINCE)) return false;
  const vchan = refsVchan(refs), exempt = told ? publisher + PUBLISHER_STRUCT_EXEMPT : 0;
  const releases = <u32> ((refs & RETIRED_COUNT) >> 20);
  if (releases < countConcerned(channel, vchan, 0) && !(seen && countConcerned(channel, vchan, exempt) == 1)) return false;
  // Of those who come or go just now, the bitset tells first.
  if (countAll(channel) != load<u32>(publisher, PUBLISHER_STRUCT_EPOCH_SUBSCRIBERS)) return false;
  if (stampOf(channel) != stamp) return false;
  trustAll(publisher, stamp);
  return true;
}

function trustAll(publisher: u32, stamp: u32): void {
  memory.fill(publisher + PUBLISHER_STRUCT_TRUSTED, 0xff, BITSET_ID_WORDS << 3);
  store<u32>(publisher, stamp, PUBLISHER_STRUCT_TRUST_STAMP);
}

// Ends the doubt about whoever subscribes now, where it has lasted so long that nobody can be in his first read still.
export function endDoubts(publisher: u32): void {
  trustAll(publisher, stampOf(load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL)));
}

// Whether everybody has a bit of the message, or had, at this moment. Quick; `isOver` finds out where this does not. What
// publishers count comes first: subscribers write to where the mark is.
function isAnnounced(publisher: u32, channel: u32, slot: u32, ordinal: u64): bool {
  if (load<i32>(publisher, PUBLISHER_STRUCT_VCHAN) == -1) {
    const complete = atomic.load<u64>(ccbOf(channel), CCB_TOTAL_MESSAGES);
    if (atomic.load<u64>(ccbOf(channel), CCB_ORDINALS) - 1 == complete) return true;
  }
  return (atomic.load<u32>(slot, SLOT_FLAGS) & ~SLOT_MARK_FLAGS) == announcedMark(ordinal);
}

function isOver(publisher: u32, channel: u32, slot: u32, ordinal: u64): bool {
  const vchan = <i32> load<i16>(slot, SLOT_VCHAN);
  if (vchan < -1 || vchan > 1022) return false;
  const next = atomic.load<u64>(ccbOf(channel) + (<u32> (vchan + 1) << 3), CCB_ORDINALS);
  const seen = (atomic.load<u32>(slot, SLOT_FLAGS) & (SLOT_FLAG_SEEN | SLOT_FLAG_SEEN_BY_RELIABLE)) != 0;
  if (!seen && ordinal + load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS) >= next) return false;
  return nobodyPublishes(channel, load<u32>(publisher, PUBLISHER_STRUCT_ID));
}
