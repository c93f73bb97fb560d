/** What messages of the benchmarks carry: a sequence number in front, and where it counts, bytes to the end. */

/** Writes the number of a message. */
export function writeSequence(bytes: Uint8Array, sequence: number): void {
  bytes[0] = sequence;
  bytes[1] = sequence >>> 8;
  bytes[2] = sequence >>> 16;
  bytes[3] = sequence >>> 24;
}

/** Reads the number of a message. */
export function readSequence(bytes: Uint8Array): number {
  return (bytes[0] | bytes[1] << 8 | bytes[2] << 16 | bytes[3] << 24) >>> 0;
}

/** Reads a message to its end: sums up its 64-bit words, as numbers. */
export function sum(words: Float64Array): number {
  let a = 0, b = 0, c = 0, d = 0;
  for (let i = 0; i < words.length; i += 4) {
    a += words[i];
    b += words[i + 1];
    c += words[i + 2];
    d += words[i + 3];
  }
  return a + b + c + d;
}
