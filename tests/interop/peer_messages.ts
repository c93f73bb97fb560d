/** The messages of the C++ peers, and whether there are such peers. */

import assert from "node:assert/strict";
import { cppFolder } from "../program.ts";

/** Whether the folder of C++ binaries has the peers, which speak through the reference's client. */
export const havePeers = cppFolder !== undefined && exists(`${cppFolder}/peer_pub`);

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Fills a message as the C++ peers do: sequence number, FNV-1a of the rest, bytes that follow from the number. */
export function fillPeerMessage(buffer: Uint8Array, size: number, sequence: number): void {
  let hash = 14695981039346656037n;
  for (let i = 0; i + 16 < size; i++) {
    const byte = (sequence * 31 + i) & 255;
    buffer[16 + i] = byte;
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 1099511628211n);
  }
  const view = new DataView(buffer.buffer, buffer.byteOffset);
  view.setBigUint64(0, BigInt(sequence), true);
  view.setBigUint64(8, hash, true);
}

/** The sequence number of a message of a C++ peer. Throws if it is torn. */
export function checkPeerMessage(data: Uint8Array): number {
  const sequence = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
  const expected = new Uint8Array(data.length);
  fillPeerMessage(expected, data.length, sequence);
  assert.deepEqual(data, expected, `message ${sequence} is torn`);
  return sequence;
}
