/** A connection to some part of a system, for a bounded time and with errors for people. */

import { SystemError } from "../ffi/errno.ts";
import { closeAll } from "../ffi/fd.ts";
import { reactor } from "../ffi/reactor.ts";
import { connectAbstract, peerCredentials } from "../ffi/unix_socket.ts";
import { type Codec, Connection, ProtocolError } from "../wire/connection.ts";
import type { Source } from "./model.ts";

/** A system that cannot be looked at. The message says why, and what to do. */
export class InspectError extends Error {
  override readonly name = "InspectError";
}

/** Whoever listens took the connection, or lets it wait, and says nothing. */
export class SilenceError extends Error {
  override readonly name = "SilenceError";
}

/** Who listens, before it is known what it is. */
export type Peer = Omit<Source, "kind">;

/** Why somebody could not be asked, and what to do. */
export function explain(error: unknown): string {
  const reason = error instanceof Error ? error.message.replaceAll("Cannot ", "cannot ") : String(error);
  if (error instanceof ProtocolError) return `${reason}; is that a subspace shadow or server?`;
  if (!(error instanceof SystemError)) return reason;
  switch (error.code) {
    case "ECONNREFUSED":
      return "nobody listens there (ECONNREFUSED); start a shadow, or name another socket with --socket";
    case "EAGAIN":
      return "too many connections wait there already (EAGAIN); whoever listens is stuck";
    default:
      return reason;
  }
}

/** By when all of something is to be done. */
export interface Deadline {
  /** As `Date.now()` counts. */
  readonly at: number;
  /** What was allowed for it, to be shown. */
  readonly timeoutMs: number;
}

/** A deadline from now on. */
export function deadlineIn(timeoutMs: number): Deadline {
  return { at: Date.now() + timeoutMs, timeoutMs };
}

/** Connects, and does something with the connection. At the deadline it is closed, and whatever waits for it fails. */
export async function connected<T>(
  socket: string,
  { at, timeoutMs }: Deadline,
  see: (connection: Connection, peer: Peer) => Promise<T>,
): Promise<T> {
  using connection = new Connection(connectAbstract(socket));
  const tooLate = new SilenceError(
    `no answer within ${timeoutMs / 1000} s; whoever listens there is stuck, or no part of subspace`,
  );
  const cancel = reactor().after(Math.max(0, at - Date.now()), () => connection.close(tooLate));
  try {
    return await see(connection, { socket, pid: peerCredentials(connection.socket).pid });
  } finally {
    cancel();
  }
}

/** Waits for an answer; fds that come with it are closed. */
export async function next<Message>(connection: Connection, codec: Codec<Message>): Promise<Message> {
  const incoming = await connection.receive(codec);
  if (incoming === null) {
    throw connection.failure ?? new ProtocolError("the connection was closed without an answer");
  }
  closeAll(incoming.fds);
  return incoming.message;
}
