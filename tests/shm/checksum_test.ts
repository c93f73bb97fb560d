import assert from "node:assert/strict";
import { checksumMatches, crc32, crc32c } from "../../shm/checksum.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const none = new Uint8Array();

function sum(compute: typeof crc32, ...[head, metadata, payload]: Uint8Array[]): string {
  const checksum = new Uint8Array(8);
  compute(checksum, head, metadata, payload);
  assert.deepEqual(checksum.subarray(4), new Uint8Array(4));
  return new DataView(checksum.buffer).getUint32(0, true).toString(16);
}

Deno.test("both CRCs have the values that the specification names", () => {
  assert.equal(sum(crc32, bytes("123456789"), none, none), "cbf43926");
  assert.equal(sum(crc32c, bytes("123456789"), none, none), "e3069283");
  // Slot 2, size 5, ordinal 7, time 1000, flags 4, no virtual channel, a checksum of 4 bytes, no metadata.
  const prefix = new DataView(new ArrayBuffer(48));
  prefix.setInt32(4, 2, true);
  prefix.setUint32(8, 5, true);
  prefix.setUint32(16, 7, true);
  prefix.setUint32(24, 1000, true);
  prefix.setUint32(32, 4, true);
  prefix.setInt32(40, -1, true);
  prefix.setUint16(44, 4, true);
  const head = new Uint8Array(prefix.buffer, 4);
  assert.equal(sum(crc32, head, none, bytes("hello")), "4da69214");
  assert.equal(sum(crc32c, head, none, bytes("hello")), "e93e786d");
});

Deno.test("a message's parts are summed as if they were one, whatever their lengths", () => {
  const text = bytes("The quick brown fox jumps over the lazy dog");
  for (const compute of [crc32, crc32c]) {
    for (let i = 0; i < text.length; i++) {
      const j = Math.floor((i + text.length) / 2);
      const parts = [text.subarray(0, i), text.subarray(i, j), text.subarray(j)];
      assert.equal(sum(compute, ...parts), sum(compute, text, none, none));
    }
  }
});

Deno.test("a message with either CRC is right, and with neither wrong", () => {
  const parts = { head: bytes("head"), metadata: bytes("meta"), checksum: new Uint8Array(4) };
  for (const compute of [crc32, crc32c]) {
    compute(parts.checksum, parts.head, parts.metadata, bytes("payload"));
    assert(checksumMatches(parts, bytes("payload"), null));
    assert(!checksumMatches(parts, bytes("Payload"), null));
  }
  assert(!checksumMatches(parts, bytes("payload"), (checksum) => checksum.fill(1)));
});
