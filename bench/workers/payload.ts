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
