/** What went over a shadow's socket, as data: frames in hexadecimal, and what kinds of fds came with each. */

import { createEventFd } from "../../ffi/eventfd.ts";
import type { Fd } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { createPacketPipe } from "../../ffi/pipe.ts";
import type { ShadowEvent } from "../../proto/subspace_pb.ts";
import type { Codec, Connection } from "../../wire/connection.ts";
import { shadowEventCodec } from "../../wire/shadow_link.ts";

/** One event. */
export interface RecordedEvent {
  /** The protobuf message, without its length. */
  readonly bytes: string;
  /** `memory N` with N bytes, `eventfd` or `pipe`. */
  readonly fds?: readonly string[];
}

/** What the reference's server told a shadow in the course of a story, and what the reference's shadow made of it. */
export interface Recording {
  readonly story: string;
  readonly events: readonly RecordedEvent[];
  /** From the header to the end. */
  readonly dump: readonly RecordedEvent[];
}

/** A message as it came. */
export interface RawEvent {
  readonly bytes: Uint8Array;
  readonly event: ShadowEvent;
}

/** Reads events and keeps their bytes. */
export const rawEventCodec: Codec<RawEvent> = {
  decode: (bytes) => ({ bytes, event: shadowEventCodec.decode(bytes) }),
  fdsFollow: ({ event }) => shadowEventCodec.fdsFollow(event),
};

const S_IFMT = 0o170000;
const S_IFIFO = 0o010000;
const S_IFREG = 0o100000;

/** What an fd is. */
export function kindOf(fd: Fd): string {
  const { mode, bytes } = fd.stat();
  if ((mode & S_IFMT) === S_IFREG) return `memory ${bytes}`;
  return (mode & S_IFMT) === S_IFIFO ? "pipe" : "eventfd";
}

/** An fd of the same kind. */
function likeKind(kind: string): Fd {
  if (kind === "eventfd") return createEventFd();
  if (kind !== "pipe") return createMemory("recorded", Number(kind.split(" ")[1]));
  const [read, write] = createPacketPipe();
  write.close();
  return read;
}

/** Says again what was recorded, with fds of the same kinds. */
export async function replay(connection: Connection, events: readonly RecordedEvent[]): Promise<void> {
  for (const { bytes, fds = [] } of events) {
    const own = fds.map(likeKind);
    connection.send(Uint8Array.fromHex(bytes), own.length === 0 ? undefined : own);
    for (const fd of own) fd.close();
    await connection.drained();
  }
}
