// Slots that a publisher takes out of their turn (specification, section 5.12).

import { clearWasSet, isSet, setBit } from "./bitset";
import { BOTH_COUNTS, OWNED, slotAt } from "./channel";
import { prepare, take } from "./claim";
import {
  CHANNEL_STRUCT_NUM_SLOTS,
  CHANNEL_STRUCT_RETIRED,
  OUTCOME_NONE,
  PUBLISHER_STRUCT_CHANNEL,
  PUBLISHER_STRUCT_RELIABLE,
} from "./offsets";
import { mayReuse } from "./reuse";

// Takes a certain slot, which must be retired and held by nobody. Returns its id, or Outcome.none. A reliable
// publisher also leaves it to a subscriber that came after it was retired.
export function reclaim(publisher: u32, id: u32): i32 {
  const channel = load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL);
  if (id >= load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS)) return OUTCOME_NONE;
  const retired = load<u32>(channel, CHANNEL_STRUCT_RETIRED), slot = slotAt(channel, id);
  if (!isSet(retired, id)) return OUTCOME_NONE;
  const refs = atomic.load<u64>(slot);
  if (refs & (OWNED | BOTH_COUNTS)) return OUTCOME_NONE;
  if (load<u32>(publisher, PUBLISHER_STRUCT_RELIABLE) && !mayReuse(publisher, channel, id, refs)) return OUTCOME_NONE;
  if (!take(publisher, slot, refs)) return OUTCOME_NONE;
  clearWasSet(retired, id);
  return prepare(publisher, channel, id, 0);
}

// A message that nobody is there to read: its slot may be used again at once.
export function retire(publisher: u32, id: u32): void {
  setBit(load<u32>(load<u32>(publisher, PUBLISHER_STRUCT_CHANNEL), CHANNEL_STRUCT_RETIRED), id);
}
