/** What a server hands over to the one that goes on in its place, after its state dump (docs/extensions.md). */

import { drain } from "../ffi/eventfd.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { fromBinary, type Init, toBinary } from "../proto/message.ts";
import { HandOverSchema } from "../proto/subspace.ts";
import type { HandOver, HandOverConnection, HandOverCount } from "../proto/subspace_pb.ts";
import { decode } from "./client_link.ts";
import {
  type Codec,
  type Connection,
  type ConnectionState,
  type Incoming,
  ProtocolError,
} from "./connection.ts";

/** What both ends read. */
export const handOverCodec: Codec<HandOver> = {
  decode: (bytes) => decode("hand-over", () => checkCounts(fromBinary(HandOverSchema, bytes))),
  fdsFollow: (message) => fdCount(message) > 0,
};

/** What a client may have under way to be handed over with it: answers that it has not taken, a request half sent. */
const UNDER_WAY_BYTES_MAX = 4 * 1024 * 1024;
const UNDER_WAY_FDS_MAX = 4096;

/** Whether so much of a connection is under way that it is not handed over: one must not hold up all others. */
export function isTooMuch({ pending, pendingFds, input, arrivals, outbound }: ConnectionState): boolean {
  const bytes = outbound.reduce(
    (sum, { bytes }) => sum + bytes.length,
    (pending?.length ?? 0) + input.length,
  );
  const fds = [...arrivals, ...outbound].reduce((sum, { fds }) => sum + fds.length, pendingFds.length);
  return bytes > UNDER_WAY_BYTES_MAX || fds > UNDER_WAY_FDS_MAX;
}

function checkCounts(message: HandOver): HandOver {
  const { part } = message;
  const connection = part.case === "client" || part.case === "shadow" ? part.value.connection : undefined;
  for (const count of connection === undefined ? [] : connectionFdCounts(connection)) {
    if (count < 0) throw new RangeError(`it counts ${count} fds`);
  }
  return message;
}

/** How many fds a part has behind it. */
function fdCount({ part }: HandOver): number {
  switch (part.case) {
    case "client":
    case "shadow":
      return part.value.connection === undefined
        ? 0
        : connectionFdCounts(part.value.connection).reduce((sum, count) => sum + count, 1);
    case "server":
      return 3;
    default:
      return 0;
  }
}

/** How many fds each part of a connection has, beside its socket. */
function connectionFdCounts({ numPendingFds, arrivals, outbound }: HandOverConnection): number[] {
  return [numPendingFds, ...[...arrivals, ...outbound].map(({ numFds }) => numFds)];
}

/** Sends a part, and its fds. They stay the caller's. */
export function sendPart(
  connection: Connection,
  part: NonNullable<Init<HandOver>["part"]>,
  fds: readonly Fd[] = [],
): void {
  connection.send(toBinary(HandOverSchema, { part }), fds.length === 0 ? undefined : fds);
}

/**
 * Checks that a part has as many fds as it needs.
 *
 * @throws {ProtocolError} If not. They are closed then.
 */
export function checkFds({ message, fds }: Incoming<HandOver>): void {
  const expected = fdCount(message);
  if (fds.length === expected) return;
  closeAll(fds);
  throw new ProtocolError(
    `Cannot accept ${message.part.case} of a hand-over: it needs ${expected} fds, ${fds.length} came`,
  );
}

/** The tokens that come last: two eventfds that hold 1. Whoever reads it has the token. */
export function tokensOf(baton: Fd, fence: Fd): Record<"baton" | "fence", { take(): boolean }> {
  return {
    baton: { take: () => drain(baton.number) },
    fence: { take: () => drain(fence.number) },
  };
}

/** Numbers by name, as a part of a message. */
export function counts(numbers: Iterable<[string, number]>): Init<HandOverCount>[] {
  return Array.from(numbers, ([what, count]) => ({ what, count: BigInt(count) }));
}

/** The numbers that were sent. */
export function countsOf(list: readonly HandOverCount[]): [string, number][] {
  return list.map(({ what, count }) => [what, Number(count)]);
}

/** A suspended connection as a part of a message, and its fds. */
export function connectionPart(
  socket: Fd,
  { pending, pendingFds, input, arrivals, outbound }: ConnectionState,
): { connection: Init<HandOverConnection>; fds: Fd[] } {
  return {
    connection: {
      hasPending: pending !== null,
      pending: pending ?? new Uint8Array(),
      numPendingFds: pendingFds.length,
      input,
      arrivals: arrivals.map(({ end, fds }) => ({ end, numFds: fds.length })),
      outbound: outbound.map(({ bytes, fds }) => ({ bytes, numFds: fds.length })),
    },
    fds: [
      socket,
      ...pendingFds,
      ...arrivals.flatMap(({ fds }) => fds),
      ...outbound.flatMap(({ fds }) => fds),
    ],
  };
}

/** The socket and the state of a connection that was handed over. */
export function connectionOf(
  { hasPending, pending, numPendingFds, input, arrivals, outbound }: HandOverConnection,
  [socket, ...fds]: readonly Fd[],
): { socket: Fd; state: ConnectionState } {
  return {
    socket,
    state: {
      pending: hasPending ? pending : null,
      pendingFds: fds.splice(0, numPendingFds),
      input,
      arrivals: arrivals.map(({ end, numFds }) => ({ end, fds: fds.splice(0, numFds) })),
      outbound: outbound.map(({ bytes, numFds }) => ({ bytes: bytes.slice(), fds: fds.splice(0, numFds) })),
    },
  };
}
