// Bitsets: arrays of atomic u64 words, the lowest bit first (specification, section 4.3). `words` is the address
// of the first word, behind the object's header.

@inline
export function wordOf(words: u32, bit: u32): u32 {
  return words + ((bit >> 6) << 3);
}

@inline
export function maskOf(bit: u32): u64 {
  return (<u64> 1) << (bit & 63);
}

@inline
export function isSet(words: u32, bit: u32): bool {
  return (atomic.load<u64>(wordOf(words, bit)) & maskOf(bit)) != 0;
}

@inline
export function setBit(words: u32, bit: u32): void {
  atomic.or<u64>(wordOf(words, bit), maskOf(bit));
}

// Reads first: most bits that are to be cleared are clear already, and a load is three times cheaper.
@inline
export function clearBit(words: u32, bit: u32): void {
  if (isSet(words, bit)) atomic.and<u64>(wordOf(words, bit), ~maskOf(bit));
}

// Clears a bit and says whether it was this call that did.
@inline
export function clearWasSet(words: u32, bit: u32): bool {
  return (atomic.and<u64>(wordOf(words, bit), ~maskOf(bit)) & maskOf(bit)) != 0;
}

// The first set bit at or after `from`; -1 where none of the first `numBits` is set.
export function nextSet(words: u32, numBits: u32, from: u32): i32 {
  let bit = from;
  while (bit < numBits) {
    const word = atomic.load<u64>(wordOf(words, bit)) >> (bit & 63);
    if (word) {
      bit += <u32> ctz(word);
      return bit < numBits ? <i32> bit : -1;
    }
    bit = (bit | 63) + 1;
  }
  return -1;
}

export function clearAll(words: u32, numWords: u32): void {
  for (let i: u32 = 0; i < numWords; i++) atomic.store<u64>(words + (i << 3), 0);
}

export function isEmpty(words: u32, numWords: u32): bool {
  for (let i: u32 = 0; i < numWords; i++) if (atomic.load<u64>(words + (i << 3))) return false;
  return true;
}
