// Sorting a snapshot. It is sorted already but for a few runs, as slots are used in turn: Shell's method does well
// on those, and never badly.

import { SNAPSHOT_ENTRY_BYTES, SNAPSHOT_ENTRY_KEY, SNAPSHOT_ENTRY_ORDINAL, SNAPSHOT_ENTRY_SLOT } from "./offsets";

export function sortSnapshot(snapshot: u32, count: u32): void {
  let gap: u32 = 1;
  if (count > 24) while (gap < count / 3) gap = gap * 3 + 1;
  for (; gap > 0; gap /= 3) {
    for (let i = gap; i < count; i++) insert(snapshot, i, gap);
  }
}

function insert(snapshot: u32, index: u32, gap: u32): void {
  const from = snapshot + index * SNAPSHOT_ENTRY_BYTES, step = gap * SNAPSHOT_ENTRY_BYTES;
  const key = load<u64>(from, SNAPSHOT_ENTRY_KEY), ordinal = load<u64>(from, SNAPSHOT_ENTRY_ORDINAL);
  const slot = load<u64>(from, SNAPSHOT_ENTRY_SLOT);
  let at = from;
  while (at >= snapshot + step && after(at - step, key, ordinal)) {
    memory.copy(at, at - step, SNAPSHOT_ENTRY_BYTES);
    at -= step;
  }
  store<u64>(at, key, SNAPSHOT_ENTRY_KEY);
  store<u64>(at, ordinal, SNAPSHOT_ENTRY_ORDINAL);
  store<u64>(at, slot, SNAPSHOT_ENTRY_SLOT); // and the vchan beside it
}

@inline
function after(entry: u32, key: u64, ordinal: u64): bool {
  const there = load<u64>(entry, SNAPSHOT_ENTRY_KEY);
  return there > key || (there == key && load<u64>(entry, SNAPSHOT_ENTRY_ORDINAL) > ordinal);
}
