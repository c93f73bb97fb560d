/** Names of the memory objects that hold messages (specification, section 4.8). */

import { unlinkNamed } from "../ffi/memory_object.ts";

/**
 * The name of a message buffer in `/dev/shm`.
 *
 * @param resolvedName The channel's name; the multiplexer's for a virtual channel.
 */
export function bufferName(sessionId: bigint, resolvedName: string, index: number): string {
  return `subspace_${sessionId}_${resolvedName.replaceAll("/", ".")}_${index}`;
}

/** Removes the message buffers of a channel. Those who have them mapped keep them. Returns how many there were. */
export function unlinkBuffers(sessionId: bigint, resolvedName: string, count: number): number {
  let removed = 0;
  for (let index = 0; index < count; index++) {
    if (unlinkNamed(bufferName(sessionId, resolvedName, index))) removed++;
  }
  return removed;
}

/** A part of a split buffer: the prefixes of all slots, or one slot's payload. */
export type SplitPart = "prefix" | { readonly slot: number };

/** The path of the file that describes a part of a split buffer. */
export function splitPath(sessionId: bigint, resolvedName: string, index: number, part: SplitPart): string {
  const suffix = part === "prefix" ? part : `slot_${part.slot}`;
  return `/tmp/${bufferName(sessionId, resolvedName, index)}_${suffix}`;
}

const FNV_PRIME = 1099511628211n;
/** Not the basis of FNV-1a, by a digit. */
const HASH_BASIS = 1469598103934665603n;

/** The name in `/dev/shm` of a part of a split buffer: a hash of its path. */
export function splitObjectName(path: string): string {
  let hash = HASH_BASIS;
  for (const byte of new TextEncoder().encode(path)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * FNV_PRIME);
  }
  return `subspace_sb_${hash.toString(16).padStart(16, "0")}`;
}
