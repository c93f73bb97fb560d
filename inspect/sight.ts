/**
 * Looking at a running system through a shadow's or a server's socket, without changing anything.
 *
 * A shadow speaks first, a server only when asked. What is asked first is something that a shadow that is slow to
 * speak ignores: a request for all channels has the bytes of an event that removes a subscriber of a channel without
 * a name. `Init` has those of an event that makes a shadow forget everything: it is sent only to what has answered as
 * a server does.
 */

import { pollSync } from "../ffi/poll.ts";
import { reactor } from "../ffi/reactor.ts";
import type { Response, ShadowEvent } from "../proto/subspace_pb.ts";
import { closeBriefDump, receiveBriefDumpSoFar, type SeenSoFar } from "../wire/brief_dump.ts";
import { responseCodec, sendRequest } from "../wire/client_link.ts";
import { type Codec, type Connection, ProtocolError } from "../wire/connection.ts";
import { fdCount, sendEvent, shadowEventCodec } from "../wire/shadow_link.ts";
import { closeDump, receiveDumpSoFar, type StateDump } from "../wire/state_dump.ts";
import { type Header, withShadow } from "./asking.ts";
import { connected, type Deadline, deadlineIn, explain, InspectError, next, type Peer } from "./link.ts";
import type { Source } from "./model.ts";
import type { ServerAnswers } from "./server_view.ts";

/** How a system is looked at. */
export interface InspectOptions {
  /** How long all of it may take, in milliseconds. Default: 5000. */
  timeoutMs?: number;
  /** How long a peer may be silent before it is asked something, in milliseconds. Default: 100. */
  quietMs?: number;
}

const TIMEOUT_MS = 5000;

/** What somebody told of a system. To be disposed: a shadow's dump owns fds. */
export type Sight = ShadowSight | ServerSight;

/** A shadow's state, or as much of it as came. */
export interface ShadowSight extends Disposable, SeenSoFar {
  readonly kind: "shadow";
  readonly source: Source;
}

/** The same, with the fds of users. */
export interface WholeShadowSight extends ShadowSight {
  readonly dump: StateDump;
}

/** A server's answers. */
export interface ServerSight extends Disposable {
  readonly kind: "server";
  readonly source: Source;
  readonly answers: ServerAnswers;
}

/**
 * Asks whoever listens on a socket for all that they tell.
 *
 * @param socket Abstract name of a shadow's or a server's socket.
 * @throws {InspectError} If nobody answers there, or not as a shadow or a server does.
 */
export function look(socket: string, options: InspectOptions = {}): Promise<Sight> {
  return lookBefore(deadlineIn(options.timeoutMs ?? TIMEOUT_MS), socket, options);
}

/** As `look`, as a part of something that has a deadline. */
export function lookBefore(
  deadline: Deadline,
  socket: string,
  options: Pick<InspectOptions, "quietMs"> = {},
): Promise<Sight> {
  return explained(
    socket,
    async () =>
      await withShadow(socket, deadline, lookInBrief) ?? await askWhoever(socket, deadline, options),
  );
}

/** As `look`, with the fds of users: that is six times as many. */
export function lookAtAll(
  socket: string,
  options: InspectOptions = {},
): Promise<WholeShadowSight | ServerSight> {
  return explained(socket, () => askWhoever(socket, deadlineIn(options.timeoutMs ?? TIMEOUT_MS), options));
}

async function explained<T>(socket: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw new InspectError(`Cannot inspect ${socket}: ${explain(error)}`);
  }
}

async function askWhoever(
  socket: string,
  deadline: Deadline,
  { quietMs = 100 }: Pick<InspectOptions, "quietMs">,
): Promise<WholeShadowSight | ServerSight> {
  const sight = await connected(
    socket,
    deadline,
    async (connection, peer) =>
      await speaks(connection, quietMs)
        ? await lookAtShadow(connection, peer)
        : await lookAtServer(connection, peer),
  );
  // A shadow that was slower to speak than this side to ask: once more, and listening only.
  return sight ?? await connected(socket, deadline, lookAtShadow);
}

async function lookInBrief(connection: Connection, { pid }: Header, socket: string): Promise<ShadowSight> {
  sendEvent(connection, { event: { case: "requestState", value: { brief: true, bundles: true } } });
  const received = await receiveBriefDumpSoFar(connection);
  return {
    kind: "shadow",
    source: { kind: "shadow", socket, pid },
    ...received,
    [Symbol.dispose]: () => closeBriefDump(received.dump),
  };
}

/** Waits until something comes, or the stream ends. Returns false where it stays quiet. */
function speaks(connection: Connection, quietMs: number): Promise<boolean> {
  // What came while the connection was made has been reported already, to nobody.
  if (pollSync([connection.socket.number], 0).length > 0) return Promise.resolve(true);
  return new Promise((resolve) => {
    const cancel = reactor().after(quietMs, () => done(false));
    const done = (spoke: boolean) => {
      cancel();
      connection.onReadable = null;
      resolve(spoke);
    };
    connection.onReadable = () => done(true);
  });
}

async function lookAtShadow(connection: Connection, peer: Peer): Promise<WholeShadowSight> {
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
