/** The link between a server and a shadow: events and state dumps (specification, section 3). */

import { create, fromBinary, type Init, toBinary } from "../proto/message.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { ShadowEventSchema } from "../proto/subspace.ts";
import type { ShadowAddPublisher, ShadowBriefChannel, ShadowEvent } from "../proto/subspace_pb.ts";
import { decode } from "./client_link.ts";
import { type Codec, type Connection, type Incoming, ProtocolError } from "./connection.ts";

/** An event to be sent: see section 3.1 for the members. */
export type ShadowEventInit = Init<ShadowEvent>;

/** What both ends read. */
export const shadowEventCodec: Codec<ShadowEvent> = {
  decode: (bytes) => decode("shadow event", () => fromBinary(ShadowEventSchema, bytes)),
  fdsFollow: (event) => fdCount(event) > 0,
};

/** Fds of a channel beside those of its users, and of a subscriber. */
export const CHANNEL_FDS = 2, SUBSCRIBER_FDS = 2;

/** How many fds a publisher has. */
export function publisherFdCount({ notifyRetirement }: ShadowAddPublisher): number {
  return notifyRetirement ? 4 : 2;
}

/** How many fds an event has behind it: the order of each kind is that of section 3.1. */
export function fdCount({ event }: ShadowEvent): number {
  switch (event.case) {
    case "init":
      return 1;
    case "createChannel":
    case "briefChannel":
      return CHANNEL_FDS;
    case "addSubscriber":
      return SUBSCRIBER_FDS;
    case "addPublisher":
      return publisherFdCount(event.value);
    case "bundle":
      return event.value.brief
        ? CHANNEL_FDS * event.value.channels.length
        : event.value.channels.reduce((sum, channel) => sum + bundledFdCount(channel), 0);
    case "stateDump":
      return event.value.sessionId !== 0n ? 1 : 0;
    case "registerClientBuffer":
      return event.value.hasFd ? 1 : 0;
    default:
      return 0;
  }
}

function bundledFdCount({ publishers, subscribers }: ShadowBriefChannel): number {
  return publishers.reduce(
    (sum, publisher) => sum + publisherFdCount(publisher),
    CHANNEL_FDS + SUBSCRIBER_FDS * subscribers.length,
  );
}

/**
 * Takes the next event and its fds, if all of it is here.
 *
 * @returns null where it is not, or at the end of the stream, in order or not: see the connection's `closed` and
 * `failure`. An event with the wrong number of fds ends it too.
 */
export function tryReceiveEvent(connection: Connection): Incoming<ShadowEvent> | null {
  return withItsFds(connection, connection.tryReceive(shadowEventCodec));
}

/** Waits for the next event; null at the end of the stream, as for `tryReceiveEvent`. */
export async function receiveEvent(connection: Connection): Promise<Incoming<ShadowEvent> | null> {
  return withItsFds(connection, await connection.receive(shadowEventCodec));
}

function withItsFds(
  connection: Connection,
  incoming: Incoming<ShadowEvent> | null,
): Incoming<ShadowEvent> | null {
  if (incoming === null) return null;
  const expected = fdCount(incoming.message);
  if (incoming.fds.length === expected) return incoming;
  closeAll(incoming.fds);
  connection.close(
    new ProtocolError(
      `Cannot accept ${incoming.message.event.case}: it needs ${expected} fds, ${incoming.fds.length} came`,
    ),
  );
  return null;
}

/** An event without what only ours say of users: for a link that speaks the old protocol. */
export function inOldProtocol(message: ShadowEventInit): ShadowEventInit {
  const { event } = message;
  if (event?.case !== "addPublisher" && event?.case !== "addSubscriber") return message;
  const ours = { processStart: 0n, pidNamespace: 0n, requestToken: 0n, doorbell: false, clientToken: 0n };
  const value = { ...event.value, ...ours };
  return { event: { case: event.case, value } as NonNullable<ShadowEventInit["event"]> };
}

/** Sends an event, and the frame of its fds if it has any. */
export function sendEvent(connection: Connection, event: ShadowEventInit, fds: readonly Fd[] = []): void {
  const message = create(ShadowEventSchema, event);
  if (fds.length !== fdCount(message)) {
    throw new Error(`Cannot send ${message.event.case}: it needs ${fdCount(message)} fds, not ${fds.length}`);
  }
  connection.send(toBinary(ShadowEventSchema, message), fds.length === 0 ? undefined : fds);
}
