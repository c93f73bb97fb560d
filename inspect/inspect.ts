/**
 * Looking at a running system through a shadow's or a server's socket, without changing anything.
 *
 * A shadow speaks first, a server only when asked. What is asked first is something that a shadow that is slow to
 * speak ignores: a request for all channels has the bytes of an event that removes a subscriber of a channel without
 * a name. `Init` has those of an event that makes a shadow forget everything: it is sent only to what has answered as
 * a server does.
 */

import { SystemError } from "../ffi/errno.ts";
import { closeAll } from "../ffi/fd.ts";
import { pollSync } from "../ffi/poll.ts";
import { connectAbstract, peerCredentials } from "../ffi/unix_socket.ts";
import type { Response, ShadowEvent } from "../proto/subspace_pb.ts";
import { responseCodec, sendRequest } from "../wire/client_link.ts";
import { type Codec, Connection, ProtocolError } from "../wire/connection.ts";
import { fdCount, shadowEventCodec } from "../wire/shadow_link.ts";
import { closeDump, type ReceivedDump, receiveDumpSoFar } from "../wire/state_dump.ts";
import type { Inspection, Source } from "./model.ts";
import { type ServerAnswers, viewOfServer } from "./server_view.ts";
import { viewOfDump } from "./shadow_view.ts";
import { surroundingsNow } from "./surroundings.ts";

/** How a system is looked at. */
export interface InspectOptions {
  /** How long all of it may take, in milliseconds. Default: 5000. */
  timeoutMs?: number;
  /** How long a peer may be silent before it is asked something, in milliseconds. Default: 100. */
  quietMs?: number;
}

/** A system that cannot be looked at. The message says why, and what to do. */
export class InspectError extends Error {
  override readonly name = "InspectError";
}

/** What somebody told of a system. To be disposed: a shadow's dump owns fds. */
export type Sight = ShadowSight | ServerSight;

/** A shadow's state, or as much of it as came. */
export interface ShadowSight extends Disposable, ReceivedDump {
  readonly kind: "shadow";
  readonly source: Source;
}

/** A server's answers. */
export interface ServerSight extends Disposable {
  readonly kind: "server";
  readonly source: Source;
  readonly answers: ServerAnswers;
}

/**
 * Looks at a system through a socket.
 *
 * @param socket Abstract name of a shadow's or a server's socket.
 * @throws {InspectError} If nobody answers there, or not as a shadow or a server does.
 */
export async function inspect(socket: string, options: InspectOptions = {}): Promise<Inspection> {
  using sight = await look(socket, options);
  return viewOf(sight);
}

/** What was told, as data. Reads the shared memory again each time. */
export function viewOf(sight: Sight): Inspection {
  return sight.kind === "shadow"
    ? viewOfDump(sight.dump, sight.source, surroundingsNow(), sight)
    : viewOfServer(sight.answers, sight.source, surroundingsNow());
}

/**
 * Asks whoever listens on a socket for all that they tell.
 *
 * @param socket Abstract name of a shadow's or a server's socket.
 * @throws {InspectError} If nobody answers there, or not as a shadow or a server does.
 */
export async function look(socket: string, options: InspectOptions = {}): Promise<Sight> {
  const { timeoutMs = 5000, quietMs = 100 } = options;
  const deadline = Date.now() + timeoutMs;
  const connected = async <T>(see: (connection: Connection, peer: Peer) => Promise<T>): Promise<T> => {
    using connection = new Connection(connectAbstract(socket));
    const tooLate = new Error(
      `no answer within ${timeoutMs / 1000} s; whoever listens there is stuck, or no part of subspace`,
    );
    const timer = setTimeout(() => connection.close(tooLate), deadline - Date.now());
    try {
      return await see(connection, { socket, pid: peerCredentials(connection.socket).pid });
    } finally {
      clearTimeout(timer);
    }
  };
  try {
    const sight = await connected(async (connection, peer) =>
      await speaks(connection, quietMs)
        ? await lookAtShadow(connection, peer)
        : await lookAtServer(connection, peer)
    );
    // A shadow that was slower to speak than this side to ask: once more, and listening only.
    return sight ?? await connected(lookAtShadow);
  } catch (error) {
    throw new InspectError(`Cannot inspect ${socket}: ${explain(error)}`);
  }
}

/** Who listens, before it is known what it is. */
type Peer = Omit<Source, "kind">;

function explain(error: unknown): string {
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

/** Waits until something comes, or the stream ends. Returns false where it stays quiet. */
function speaks(connection: Connection, quietMs: number): Promise<boolean> {
  // What came while the connection was made has been reported already, to nobody.
  if (pollSync([connection.socket.number], 0).length > 0) return Promise.resolve(true);
  return new Promise((resolve) => {
    const timer = setTimeout(() => done(false), quietMs);
    const done = (spoke: boolean) => {
      clearTimeout(timer);
      connection.onReadable = null;
      resolve(spoke);
    };
    connection.onReadable = () => done(true);
  });
}

async function lookAtShadow(connection: Connection, peer: Peer): Promise<ShadowSight> {
  const received = await receiveDumpSoFar(connection);
  return {
    kind: "shadow",
    source: { kind: "shadow", ...peer },
    ...received,
    [Symbol.dispose]: () => closeDump(received.dump),
  };
}

/** Returns null where it is no server: a shadow spoke late. */
async function lookAtServer(connection: Connection, peer: Peer): Promise<ServerSight | null> {
  sendRequest(connection, { request: { case: "getChannelInfo", value: {} } });
  const first = await next(connection, firstCodec);
  if (first.$typeName === "subspace.ShadowEvent") return null;
  const channels = answerOf(first, "getChannelInfo").channels;
  sendRequest(connection, { request: { case: "getChannelStats", value: {} } });
  const stats = answerOf(await next(connection, responseCodec), "getChannelStats").channels;
  sendRequest(connection, { request: { case: "init", value: { clientName: "subspace-inspect" } } });
  const { sessionId } = answerOf(await next(connection, responseCodec), "init");
  return {
    kind: "server",
    source: { kind: "server", ...peer },
    answers: { channels, stats, sessionId },
    [Symbol.dispose]: () => {},
  };
}

/** Tag of `state_dump` in a `ShadowEvent`. No answer to the first question begins with it. */
const STATE_DUMP_TAG = 8 << 3 | 2;

/** Reads what a peer of unknown kind says first. */
const firstCodec: Codec<Response | ShadowEvent> = {
  decode: (bytes) => (bytes[0] === STATE_DUMP_TAG ? shadowEventCodec : responseCodec).decode(bytes),
  fdsFollow: (message) => message.$typeName !== "subspace.ShadowEvent" || fdCount(message) > 0,
};

async function next<Message>(connection: Connection, codec: Codec<Message>): Promise<Message> {
  const incoming = await connection.receive(codec);
  if (incoming === null) {
    throw connection.failure ?? new ProtocolError("the connection was closed without an answer");
  }
  closeAll(incoming.fds);
  return incoming.message;
}

type Answer = Response["response"];
type ValueOf<Case> = Extract<Answer, { case: Case }> extends { value: infer Value } ? Value : never;

/** The answer of the kind that was asked for. */
function answerOf<Case extends Answer["case"]>({ response }: Response, expected: Case): ValueOf<Case> {
  if (response.case === undefined || response.case !== expected) {
    throw new ProtocolError(`it answered ${response.case ?? "nothing"} to ${expected}`);
  }
  if ("error" in response.value && response.value.error !== "") throw new Error(response.value.error);
  return response.value as ValueOf<Case>;
}
