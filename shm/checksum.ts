/** Checksums of messages (specification, section 4.9). */

/**
 * Computes a checksum over three parts of a message, in this order: the head of its prefix, its metadata, its payload.
 *
 * @param checksum Where it goes: all the room that the channel has for it, filled with zeroes.
 */
export type ChecksumFunction = (
  checksum: Uint8Array,
  head: Uint8Array,
  metadata: Uint8Array,
  payload: Uint8Array,
) => void;

/** Bytes of a CRC. */
export const CRC_BYTES = 4;

/** Updates a CRC; made on first use, as loading it costs a program's start 25 ms. */
let update: ((bytes: Uint8Array, crc: number) => number) | undefined;

function ieee(head: Uint8Array, metadata: Uint8Array, payload: Uint8Array): number {
  update ??= process.getBuiltinModule("node:zlib").crc32;
  const crc = update(head, 0);
  return update(payload, metadata.length === 0 ? crc : update(metadata, crc));
}

/** CRC32 as in Ethernet: what publishers compute unless told otherwise. */
export const crc32: ChecksumFunction = (checksum, head, metadata, payload) =>
  write(checksum, ieee(head, metadata, payload));

/** CRC32C (Castagnoli): what C++ publishers compute where they were compiled for SSE4.2. */
export const crc32c: ChecksumFunction = (checksum, head, metadata, payload) => {
  const crc = castagnoli(castagnoli(castagnoli(-1, head), metadata), payload);
  write(checksum, ~crc >>> 0);
};

function write(checksum: Uint8Array, crc: number): void {
  for (let i = 0; i < CRC_BYTES; i++) checksum[i] = crc >>> (8 * i);
}

/** Eight tables, one for each byte of a step. */
let tables: Int32Array<ArrayBuffer> | undefined;

function castagnoliTables(): Int32Array<ArrayBuffer> {
  const table = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
    table[byte] = crc;
  }
  for (let i = 256; i < table.length; i++) table[i] = (table[i - 256] >>> 8) ^ table[table[i - 256] & 255];
  return table;
}

function castagnoli(crc: number, bytes: Uint8Array): number {
  const t = tables ??= castagnoliTables(), end = bytes.length & ~7;
  let i = 0;
  for (; i < end; i += 8) {
    crc = t[1792 + (bytes[i] ^ (crc & 255))] ^ t[1536 + (bytes[i + 1] ^ (crc >>> 8 & 255))] ^
      t[1280 + (bytes[i + 2] ^ (crc >>> 16 & 255))] ^ t[1024 + (bytes[i + 3] ^ (crc >>> 24))] ^
      t[768 + bytes[i + 4]] ^ t[512 + bytes[i + 5]] ^ t[256 + bytes[i + 6]] ^ t[bytes[i + 7]];
  }
  for (; i < bytes.length; i++) crc = (crc >>> 8) ^ t[(crc ^ bytes[i]) & 255];
  return crc;
}

/** The parts of a message that a checksum is about, and the checksum itself. */
export interface CheckedParts {
  readonly head: Uint8Array<ArrayBuffer>;
  readonly checksum: Uint8Array<ArrayBuffer>;
  readonly metadata: Uint8Array<ArrayBuffer>;
}

/** Whether the checksum of a message is right. Without a function of the user's, either CRC is. */
export function checksumMatches(
  { head, checksum, metadata }: CheckedParts,
  payload: Uint8Array,
  custom: ChecksumFunction | null,
): boolean {
  const computed = new Uint8Array(checksum.length);
  const matches = (compute: ChecksumFunction, length: number) => {
    compute(computed, head, metadata, payload);
    for (let i = 0; i < length; i++) if (computed[i] !== checksum[i]) return false;
    return true;
  };
  if (custom !== null) return matches(custom, checksum.length);
  return matches(crc32, CRC_BYTES) || matches(crc32c, CRC_BYTES);
}
