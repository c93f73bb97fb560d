// References of subscribers that died between two instructions.
//
// A subscriber notes in the slot that it holds the message a moment after it has taken its reference, and erases the
// note a moment before it gives the reference back (section 5.7; section 9.2, 27). Killed in between, it leaves a
// reference that nobody owns, and the slot is lost. There are more references than notes then; the same is so while
// a living subscriber is between the two. So a slot is only suspected at first, and what it says then must be what it
// says much later, when the living have long gone on.

import { COUNT, numSubscribers, OWNED, refsVchan, RELIABLE_COUNT, RETIRED_COUNT, slotAt } from "./channel";
import {
  BITSET_ID_WORDS,
  BITSET_WORDS,
  CHANNEL_STRUCT_NUM_SLOTS,
  CHANNEL_STRUCT_RETIRED,
  SLOT_OWNERS,
} from "./offsets";
import { setBit } from "./bitset";

// Looks at a slot again before it is freed: ten times as long as a subscriber that runs is between the two.
const LOOKS: u32 = 1000;

function staysSo(slot: u32, refs: u64): bool {
  for (let look: u32 = 0; look < LOOKS; look++) {
    if (atomic.load<u64>(slot) != refs || countOwners(slot, 0) >= (refs & COUNT)) return false;
  }
  return true;
}

// How many subscribers have noted that they hold a slot; of those in the bitset at `among`, if it is not 0.
function countOwners(slot: u32, among: u32): u64 {
  let count: u64 = 0;
  for (let i: u32 = 0; i < BITSET_ID_WORDS; i++) {
    let word = atomic.load<u64>(slot + (i << 3), SLOT_OWNERS + BITSET_WORDS);
    if (among) word &= load<u64>(among + (i << 3));
    count += popcnt(word);
  }
  return count;
}

// Writes the refs word of each suspected slot to `suspects` (a u64 per slot), 0 for the others. Returns how many.
export function suspectReferences(channel: u32, suspects: u32): u32 {
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  let count: u32 = 0;
  for (let id: u32 = 0; id < numSlots; id++) {
    const slot = slotAt(channel, id), refs = atomic.load<u64>(slot);
    const suspected = !(refs & OWNED) && (refs & COUNT) > countOwners(slot, 0);
    store<u64>(suspects + (id << 3), suspected ? refs : 0);
    if (suspected) count++;
  }
  return count;
}

// Frees the references of the suspected slots in which nothing has changed since. `reliable` is a bitset of the ids of
// the reliable subscribers. Returns how many slots are held by less than before.
export function freeReferences(channel: u32, suspects: u32, reliable: u32): u32 {
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS);
  let freed: u32 = 0;
  for (let id: u32 = 0; id < numSlots; id++) {
    const refs = load<u64>(suspects + (id << 3)), slot = slotAt(channel, id);
    if (!refs || !staysSo(slot, refs)) continue;
    const owners = countOwners(slot, 0), reliableOwners = countOwners(slot, reliable);
    const next = (refs & ~(COUNT | RELIABLE_COUNT)) | owners | (reliableOwners << 10);
    if (atomic.cmpxchg<u64>(slot, refs, next) != refs) continue;
    freed++;
    if (owners || <i32> ((next & RETIRED_COUNT) >> 20) < numSubscribers(channel, refsVchan(next))) continue;
    setBit(load<u32>(channel, CHANNEL_STRUCT_RETIRED), id);
  }
  return freed;
}
