// Reading a message by its time (specification, section 5.10).

import { isSet } from "./bitset";
import { OWNED, slotAt, vchansMatch } from "./channel";
import {
  BITSET_WORDS,
  CHANNEL_STRUCT_NUM_SLOTS,
  OUTCOME_AT_LIMIT,
  OUTCOME_NONE,
  SLOT_ORDINAL,
  SLOT_OWNERS,
  SLOT_TIMESTAMP,
  SLOT_VCHAN,
  SNAPSHOT_ENTRY_ORDINAL,
  SNAPSHOT_ENTRY_SLOT,
  SNAPSHOT_ENTRY_VCHAN,
  SUBSCRIBER_STRUCT_CHANNEL,
  SUBSCRIBER_STRUCT_COUNT,
  SUBSCRIBER_STRUCT_CURSOR,
  SUBSCRIBER_STRUCT_ID,
  SUBSCRIBER_STRUCT_SETTLED,
  SUBSCRIBER_STRUCT_SNAPSHOT,
  SUBSCRIBER_STRUCT_SNAPSHOT_VALID,
  SUBSCRIBER_STRUCT_VCHAN,
} from "./offsets";
import { beginRead, deliver } from "./read";

// Reads the message with a timestamp, whether it was read before or not, unless it is held. Returns like `readNext`.
export function find(subscriber: u32, low: u32, high: u32): i32 {
  if (!beginRead(subscriber)) return OUTCOME_AT_LIMIT;
  const channel = load<u32>(subscriber, SUBSCRIBER_STRUCT_CHANNEL), timestamp = (<u64> high << 32) | <u64> low;
  const numSlots = load<u32>(channel, CHANNEL_STRUCT_NUM_SLOTS), vchan = load<i32>(subscriber, SUBSCRIBER_STRUCT_VCHAN);
  for (let id: u32 = 0; id < numSlots; id++) {
    // The ordinal before the time: that of the message that is pinned by it is the one that was looked at.
    const slot = slotAt(channel, id), ordinal = atomic.load<u64>(slot, SLOT_ORDINAL);
    if (load<u64>(slot, SLOT_TIMESTAMP) != timestamp || (atomic.load<u64>(slot) & OWNED)) continue;
    const messageVchan = <i32> load<i16>(slot, SLOT_VCHAN);
    if (ordinal == 0 || !vchansMatch(messageVchan, vchan)) continue;
    if (isSet(slot + SLOT_OWNERS + BITSET_WORDS, load<u32>(subscriber, SUBSCRIBER_STRUCT_ID))) continue;
    // The entry takes the place of the snapshot, which may list this very message.
    const entry = load<u32>(subscriber, SUBSCRIBER_STRUCT_SNAPSHOT);
    store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_SNAPSHOT_VALID);
    store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_SETTLED);
    store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_COUNT);
    store<u32>(subscriber, 0, SUBSCRIBER_STRUCT_CURSOR);
    store<u64>(entry, ordinal, SNAPSHOT_ENTRY_ORDINAL);
    store<u32>(entry, id, SNAPSHOT_ENTRY_SLOT);
    store<i32>(entry, messageVchan, SNAPSHOT_ENTRY_VCHAN);
    const outcome = deliver(subscriber, entry, false);
    if (outcome != OUTCOME_NONE) return outcome;
  }
  return OUTCOME_NONE;
}
