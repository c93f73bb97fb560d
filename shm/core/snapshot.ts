// Sorting a snapshot. Slots are used in turn, so it is sorted already but for a few entries, or consists of a few
// runs: inserting does well on the first, Shell's method on the second, and never badly.

import { SNAPSHOT_ENTRY_BYTES, SNAPSHOT_ENTRY_KEY, SNAPSHOT_ENTRY_ORDINAL, SNAPSHOT_ENTRY_SLOT } from "./offsets";

// Moves for each entry before it is Shell's turn.
const MOVES_MAX: u32 = 4;

export function sortSnapshot(snapshot: u32, count: u32): void {
  let moves: u32 = 0;
  for (let i: u32 = 1; i < count; i++) {
    moves += insert(snapshot, i, 1);
    if (moves > count * MOVES_MAX) return sortByGaps(snapshot, count);
  }
}

function sortByGaps(snapshot: u32, count: u32): void {
  let gap: u32 = 1;
  while (gap < count / 3) gap = gap * 3 + 1;
  for (; gap > 0; gap /= 3) {
    for (let i = gap; i < count; i++) insert(snapshot, i, gap);
  }
}

// Returns how many entries it moved.
function insert(snapshot: u32, index: u32, gap: u32): u32 {
  const from = snapshot + index * SNAPSHOT_ENTRY_BYTES, step = gap * SNAPSHOT_ENTRY_BYTES;
  const key = load<u64>(from, SNAPSHOT_ENTRY_KEY), ordinal = load<u64>(from, SNAPSHOT_ENTRY_ORDINAL);
  if (!after(from - step, key, ordinal)) return 0;
  const slot = load<u64>(from, SNAPSHOT_ENTRY_SLOT);
  let at = from, moves: u32 = 0;
  do {
    const before = at - step;
    put(
      at,
      load<u64>(before, SNAPSHOT_ENTRY_KEY),
      load<u64>(before, SNAPSHOT_ENTRY_ORDINAL),
      load<u64>(before, SNAPSHOT_ENTRY_SLOT),
    );
    at = before;
    moves++;
  } while (at >= snapshot + step && after(at - step, key, ordinal));
  put(at, key, ordinal, slot);
  return moves;
}

// `slot`: and the vchan beside it.
@inline
function put(entry: u32, key: u64, ordinal: u64, slot: u64): void {
  store<u64>(entry, key, SNAPSHOT_ENTRY_KEY);
  store<u64>(entry, ordinal, SNAPSHOT_ENTRY_ORDINAL);
  store<u64>(entry, slot, SNAPSHOT_ENTRY_SLOT);
}

@inline
function after(entry: u32, key: u64, ordinal: u64): bool {
  const there = load<u64>(entry, SNAPSHOT_ENTRY_KEY);
  return there > key || (there == key && load<u64>(entry, SNAPSHOT_ENTRY_ORDINAL) > ordinal);
}
