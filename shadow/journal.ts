/** Events in a file, with the names of their fds. A file that breaks off is good up to there. */

import type { Fd } from "../ffi/fd.ts";

/** An event as it is written down. */
export interface Frame {
  /** The encoded event. */
  readonly event: Uint8Array<ArrayBuffer>;
  /** Names of its fds, of at most 255 letters, digits and hyphens each. */
  readonly names: readonly string[];
  /** Whether it comes from a server that took the state kept aside: see `Generations.apply`. */
  readonly wentBack: boolean;
}

/** Bytes of the rest, u32; flags, u8; number of names, u8. Then each name, behind its length, u8; then the event. */
const HEADER_BYTES = 6;
const WENT_BACK = 1;
const READ_BYTES = 1 << 20;

/** A frame's bytes. */
export function frameOf({ event, names, wentBack }: Frame): Uint8Array<ArrayBuffer> {
  const encoder = new TextEncoder();
  const encoded = names.map((name) => encoder.encode(name));
  const namesBytes = encoded.reduce((sum, name) => sum + 1 + name.length, 0);
  const bytes = new Uint8Array(HEADER_BYTES + namesBytes + event.length);
  new DataView(bytes.buffer).setUint32(0, bytes.length - 4, true);
  bytes[4] = wentBack ? WENT_BACK : 0;
  bytes[5] = names.length;
  let at = HEADER_BYTES;
  for (const name of encoded) {
    bytes[at] = name.length;
    bytes.set(name, at + 1);
    at += 1 + name.length;
  }
  bytes.set(event, at);
  return bytes;
}

function parse(bytes: Uint8Array<ArrayBuffer>): Frame {
  const decoder = new TextDecoder(), names: string[] = [];
  let at = HEADER_BYTES;
  for (let i = 0; i < bytes[5]; i++) {
    names.push(decoder.decode(bytes.subarray(at + 1, at + 1 + bytes[at])));
    at += 1 + bytes[at];
  }
  return { event: bytes.slice(at), names, wentBack: (bytes[4] & WENT_BACK) !== 0 };
}

/** Reads a journal, frame by frame, as far as it is whole. */
export function* framesOf(journal: Fd): Generator<Frame> {
  const fileBytes = journal.stat().bytes;
  let buffer = new Uint8Array(READ_BYTES), at = 0, held = 0, offset = 0;
  while (true) {
    const frameBytes = held - at < 4 ? 4 : 4 + new DataView(buffer.buffer).getUint32(at, true);
    if (held - at >= Math.max(frameBytes, HEADER_BYTES)) {
      yield parse(buffer.subarray(at, at + frameBytes));
      at += frameBytes;
      continue;
    }
    // A length that the file has no room for is none.
    if (offset === fileBytes || frameBytes - (held - at) > fileBytes - offset) return;
    const next = new Uint8Array(Math.max(READ_BYTES, frameBytes));
    next.set(buffer.subarray(at, held));
    held -= at;
    const read = journal.readAt(offset, next.subarray(held));
    [buffer, at, held, offset] = [next, 0, held + read, offset + read];
    if (read === 0) return;
  }
}
