// Doorbells (docs/extensions.md): who sleeps, and waking them.
//
// A sleeper says so, looks once more for what it waits for, and only then sleeps. Whoever has something for it makes
// that visible, looks at the doorbell, and writes the eventfds of those who sleep. All accesses are sequentially
// consistent, so one of the two sees the other.
//
// Invariants, whoever is killed between two instructions:
//   - A sleeper's flag stays up until its eventfd is written, or it wakes up itself: eventfd first, then the flag. It is
//     taken down by an exchange of the very word that was seen, which counts sleeps: that of a later sleep stays.
//   - The state says "anyone" while anyone sleeps: a sleeper sets it after its own flag, and it is taken down, likewise
//     as it was seen, by whoever has seen no flag left up. It may say so when nobody sleeps any more.

import {
  DOORBELL_END,
  DOORBELL_STATE,
  DOORBELL_STATE_ANYONE,
  DOORBELL_STATE_STEP,
  DOORBELL_WORD_ALWAYS,
  DOORBELL_WORD_ASLEEP,
  DOORBELL_WORD_SLEEPS,
  DOORBELL_WORD_STEP,
  DOORBELL_WORDS,
  LIMIT_USERS,
  RINGER_STRUCT_BELL,
  RINGER_STRUCT_ID,
  RINGER_STRUCT_KNOWN,
  RINGER_STRUCT_LEFT,
  RINGER_STRUCT_STATE,
  RINGER_STRUCT_WORD,
} from "./offsets";
import { isSet } from "./bitset";

// Says that a user sleeps. Then it must look again; and only then sleep.
export function fallAsleep(bell: u32, id: u32): void {
  raise(bell, id, DOORBELL_WORD_ASLEEP);
}

// Says that a user waits by means of its own: its eventfd is always written from now on.
export function staySignalled(bell: u32, id: u32): void {
  raise(bell, id, DOORBELL_WORD_ALWAYS);
}

function raise(bell: u32, id: u32, flag: u32): void {
  while (true) {
    const end = atomic.load<u32>(bell, DOORBELL_END);
    if (end > id || atomic.cmpxchg<u32>(bell, end, id + 1, DOORBELL_END) == end) break;
  }
  const at = bell + (id << 2);
  while (true) {
    const word = atomic.load<u32>(at, DOORBELL_WORDS);
    if (atomic.cmpxchg<u32>(at, word, (word | flag) + DOORBELL_WORD_STEP, DOORBELL_WORDS) == word) break;
  }
  while (true) {
    const state = atomic.load<u32>(bell, DOORBELL_STATE);
    const next = (state | DOORBELL_STATE_ANYONE) + DOORBELL_STATE_STEP;
    if (atomic.cmpxchg<u32>(bell, state, next, DOORBELL_STATE) == state) return;
  }
}

// A user does not sleep any more, for whatever reason. Where it does not say so, it is woken once for nothing.
export function wakeUp(bell: u32, id: u32): void {
  const at = bell + (id << 2), word = atomic.load<u32>(at, DOORBELL_WORDS);
  if (word & DOORBELL_WORD_ASLEEP) atomic.cmpxchg<u32>(at, word, word & ~DOORBELL_WORD_ASLEEP, DOORBELL_WORDS);
}

// A user is gone, or new. Its word goes on counting: somebody may be about to take down a flag of the last one.
export function forgetSleeper(bell: u32, id: u32): void {
  const at = bell + (id << 2);
  while (true) {
    const word = atomic.load<u32>(at, DOORBELL_WORDS);
    if (!(word & DOORBELL_WORD_SLEEPS)) return;
    const next = (word & ~DOORBELL_WORD_SLEEPS) + DOORBELL_WORD_STEP;
    if (atomic.cmpxchg<u32>(at, word, next, DOORBELL_WORDS) == word) return;
  }
}

// Begins to wake all sleepers: after what they wait for has become visible. Returns the first one, whose eventfd is to
// be written before `goOnRinging`; -1 where nobody sleeps.
export function beginRinging(ringer: u32): i32 {
  const bell = load<u32>(ringer, RINGER_STRUCT_BELL);
  if (!bell) return -1;
  const state = atomic.load<u32>(bell, DOORBELL_STATE);
  if (!(state & DOORBELL_STATE_ANYONE)) return -1;
  store<u32>(ringer, state, RINGER_STRUCT_STATE);
  store<u32>(ringer, 0, RINGER_STRUCT_LEFT);
  return nextSleeper(ringer, bell, 0);
}

// Takes down the flag of the sleeper whose eventfd has been written, and returns the next one, or -1.
export function goOnRinging(ringer: u32): i32 {
  const bell = load<u32>(ringer, RINGER_STRUCT_BELL), id = load<u32>(ringer, RINGER_STRUCT_ID);
  const at = bell + (id << 2), word = load<u32>(ringer, RINGER_STRUCT_WORD);
  if (word & DOORBELL_WORD_ASLEEP) atomic.cmpxchg<u32>(at, word, word & ~DOORBELL_WORD_ASLEEP, DOORBELL_WORDS);
  return nextSleeper(ringer, bell, id + 1);
}

function nextSleeper(ringer: u32, bell: u32, from: u32): i32 {
  const end = min(atomic.load<u32>(bell, DOORBELL_END), LIMIT_USERS);
  for (let id = from; id < end; id++) {
    const word = atomic.load<u32>(bell + (id << 2), DOORBELL_WORDS);
    if (!(word & DOORBELL_WORD_SLEEPS)) continue;
    const known = isSet(ringer + RINGER_STRUCT_KNOWN, id);
    if (!known || word & DOORBELL_WORD_ALWAYS) store<u32>(ringer, 1, RINGER_STRUCT_LEFT);
    if (!known) continue;
    store<u32>(ringer, id, RINGER_STRUCT_ID);
    store<u32>(ringer, word, RINGER_STRUCT_WORD);
    return id;
  }
  const state = load<u32>(ringer, RINGER_STRUCT_STATE);
  if (!load<u32>(ringer, RINGER_STRUCT_LEFT)) {
    atomic.cmpxchg<u32>(bell, state, state & ~DOORBELL_STATE_ANYONE, DOORBELL_STATE);
  }
  return -1;
}
