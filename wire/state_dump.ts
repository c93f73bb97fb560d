/**
 * A shadow's whole state, as plain data that owns its fds (specification, section 3.2).
 *
 * What a shadow keeps, what it sends to a server that connects, what a server recovers from and sends again, and
 * what an inspector shows: all the same records.
 */

import { create } from "../proto/message.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { ClientBufferHandleMetadataProtoSchema } from "../proto/subspace.ts";
import type {
  ClientBufferHandleMetadataProto,
  ShadowAddPublisher,
  ShadowAddSubscriber,
  ShadowCreateChannel,
  ShadowEvent,
} from "../proto/subspace_pb.ts";
import { type Connection, type Incoming, ProtocolError } from "./connection.ts";
import { NOWHERE, type Position } from "./position.ts";
import { inOldProtocol, receiveEvent, sendEvent, type ShadowEventInit } from "./shadow_link.ts";

/** A publisher and its fds. */
export interface PublisherRecord {
  readonly info: ShadowAddPublisher;
  readonly poll: Fd;
  readonly trigger: Fd;
  /** The pipe of retired slot ids; null unless `info.notifyRetirement`. */
  readonly retirement: { readonly read: Fd; readonly write: Fd } | null;
}

/** A subscriber and its fds. */
export interface SubscriberRecord {
  readonly info: ShadowAddSubscriber;
  readonly trigger: Fd;
  readonly poll: Fd;
}

/** A registered part of a split buffer. */
export interface ClientBufferRecord {
  readonly metadata: ClientBufferHandleMetadataProto;
  readonly fd: Fd | null;
}

/** A channel, its control blocks and its users. */
export interface ChannelRecord {
  info: ShadowCreateChannel;
  ccb: Fd;
  bcb: Fd;
  /** By user id. */
  readonly publishers: Map<number, PublisherRecord>;
  readonly subscribers: Map<number, SubscriberRecord>;
  /** By `clientBufferKey`. */
  readonly clientBuffers: Map<string, ClientBufferRecord>;
}

/** A session and its channels, by name. */
export interface StateDump {
  /** 0 when the shadow has nothing. */
  readonly sessionId: bigint;
  readonly scb: Fd | null;
  readonly channels: Map<string, ChannelRecord>;
}

/** The fds of a publisher, in the order of the wire. */
export function publisherFds({ poll, trigger, retirement }: PublisherRecord): Fd[] {
  return retirement === null ? [poll, trigger] : [poll, trigger, retirement.read, retirement.write];
}

/** The fds of a subscriber, in the order of the wire. */
export function subscriberFds({ trigger, poll }: SubscriberRecord): Fd[] {
  return [trigger, poll];
}

/** A publisher record from an event and its fds. */
export function publisherRecord(info: ShadowAddPublisher, fds: readonly Fd[]): PublisherRecord {
  const [poll, trigger, read, write] = fds;
  return { info, poll, trigger, retirement: info.notifyRetirement ? { read, write } : null };
}

/** A subscriber record from an event and its fds. */
export function subscriberRecord(
  info: ShadowAddSubscriber,
  [trigger, poll]: readonly Fd[],
): SubscriberRecord {
  return { info, trigger, poll };
}

/** Tells registrations of different parts of buffers apart. */
export function clientBufferKey(part: ClientBufferHandleMetadataProto): string {
  return `${part.sessionId}/${part.bufferIndex}/${part.isPrefix ? "prefix" : part.slotId}`;
}

/** All fds of a channel. */
export function channelFds(channel: ChannelRecord): Fd[] {
  const fds = [channel.ccb, channel.bcb];
  for (const publisher of channel.publishers.values()) fds.push(...publisherFds(publisher));
  for (const subscriber of channel.subscribers.values()) fds.push(...subscriberFds(subscriber));
  for (const { fd } of channel.clientBuffers.values()) if (fd !== null) fds.push(fd);
  return fds;
}

/** Closes all fds of a channel. */
export function closeChannel(channel: ChannelRecord): void {
  closeAll(channelFds(channel));
}

/** Closes all fds of a dump. */
export function closeDump(dump: StateDump): void {
  dump.scb?.close();
  for (const channel of dump.channels.values()) closeChannel(channel);
}

/** The events that make one channel, with their fds: itself, its registered buffers, publishers, subscribers. */
export function* channelEvents(channel: ChannelRecord): Generator<[ShadowEventInit, Fd[]]> {
  yield [{ event: { case: "createChannel", value: channel.info } }, [channel.ccb, channel.bcb]];
  for (const buffer of channel.clientBuffers.values()) yield clientBufferEvent(buffer);
  for (const publisher of channel.publishers.values()) {
    yield [{ event: { case: "addPublisher", value: publisher.info } }, publisherFds(publisher)];
  }
  for (const subscriber of channel.subscribers.values()) {
    yield [{ event: { case: "addSubscriber", value: subscriber.info } }, subscriberFds(subscriber)];
  }
}

/** The event that registers a part of a split buffer, with its fd. */
export function clientBufferEvent({ metadata, fd }: ClientBufferRecord): [ShadowEventInit, Fd[]] {
  const value = { metadata, hasFd: fd !== null, fdIndex: 0 };
  return [{ event: { case: "registerClientBuffer", value } }, fd === null ? [] : [fd]];
}

/** Bytes of channels that may be on the way before their sender waits for the reader. */
const AHEAD_BYTES = 16 * 1024;

/** Sends the header of a dump alone, with its position. */
export function sendHeader(
  connection: Connection,
  { sessionId, scb, channels }: StateDump,
  position: Position,
): void {
  const value = { sessionId: scb === null ? 0n : sessionId, numChannels: channels.size, position };
  sendEvent(connection, { event: { case: "stateDump", value } }, scb === null ? [] : [scb]);
}

/**
 * Receives what `sendHeader` sent.
 *
 * @throws {ProtocolError} If something else comes.
 */
export async function receiveHeader(
  connection: Connection,
): Promise<{ sessionId: bigint; numChannels: number; position: Position }> {
  const { message: { event }, fds } = await next(connection);
  closeAll(fds);
  if (event.case !== "stateDump") {
    throw new ProtocolError(`Cannot receive a position: the shadow says ${event.case ?? "nothing"}`);
  }
  const { sessionId, numChannels, position = NOWHERE } = event.value;
  return { sessionId, numChannels, position };
}

/**
 * Sends a dump: header, channels, end. Waits for a slow reader now and then, so that it costs little memory and few fds.
 *
 * @param dump Must not change until the promise resolves.
 * @param stallMs A reader that takes nothing for so long is dropped: see the connection's `failure`.
 * @param extended Whether the reader is one of ours, and gets what the old protocol does not have.
 */
export function sendDump(
  connection: Connection,
  dump: StateDump,
  stallMs: number,
  extended = false,
): Promise<void> {
  return sendDumpAs(connection, dump, eventsOf(dump.channels.values(), extended), stallMs);
}

function* eventsOf(
  channels: Iterable<ChannelRecord>,
  extended: boolean,
): Generator<[ShadowEventInit, Fd[]]> {
  for (const channel of channels) {
    for (const [event, fds] of channelEvents(channel)) yield [extended ? event : inOldProtocol(event), fds];
  }
}

/**
 * As `sendDump`, with other events for the channels.
 *
 * @param events Each is asked for when it can be sent.
 */
export async function sendDumpAs(
  connection: Connection,
  { sessionId, scb, channels }: StateDump,
  events: Iterable<[ShadowEventInit, Fd[]]>,
  stallMs: number,
): Promise<void> {
  const value = { sessionId: scb === null ? 0n : sessionId, numChannels: channels.size };
  sendEvent(connection, { event: { case: "stateDump", value } }, scb === null ? [] : [scb]);
  for (const [event, fds] of events) {
    if (connection.closed) return;
    sendEvent(connection, event, fds);
    if (connection.outboundBytes > AHEAD_BYTES) await connection.drained(stallMs);
  }
  sendEvent(connection, { event: { case: "stateDone", value: {} } });
  await connection.drained(stallMs);
}

/**
 * Receives the dump that a shadow sends to whoever connects.
 *
 * @throws {ProtocolError} If what comes is no dump, or it ends early. All fds are closed then.
 */
export async function receiveDump(connection: Connection): Promise<StateDump> {
  const { dump, failure } = await receiveDumpSoFar(connection);
  if (failure === null) return dump;
  closeDump(dump);
  throw failure;
}

/** As much of a dump as came. */
export interface ReceivedDump {
  readonly dump: StateDump;
  /** Channels that it was to have. */
  readonly numChannels: number;
  /** Why it ended early; null where it is whole. */
  readonly failure: Error | null;
}

/**
 * Receives a dump, or what arrives of it.
 *
 * @throws {ProtocolError} If what comes is no dump.
 */
export async function receiveDumpSoFar(connection: Connection): Promise<ReceivedDump> {
  const channels: StateDump["channels"] = new Map();
  return await receiveSoFar(
    connection,
    channels,
    ({ message, fds }) => addToDump(channels, message.event, fds),
  );
}

/**
 * Receives a header, and events until the end or a failure.
 *
 * @param add Takes an event and its fds in; where it throws, the fds are closed.
 * @throws {ProtocolError} If what comes is no header.
 */
export async function receiveSoFar<Channels>(
  connection: Connection,
  channels: Channels,
  add: (incoming: Incoming<ShadowEvent>) => void,
): Promise<{
  dump: { sessionId: bigint; scb: Fd | null; channels: Channels };
  numChannels: number;
  failure: Error | null;
}> {
  const header = await next(connection);
  if (header.message.event.case !== "stateDump") {
    closeAll(header.fds);
    throw new ProtocolError(
      `Cannot receive a state dump: it starts with ${header.message.event.case ?? "nothing"}`,
    );
  }
  const { sessionId, numChannels } = header.message.event.value;
  const dump = { sessionId, scb: header.fds[0] ?? null, channels };
  try {
    while (true) {
      const incoming = await next(connection);
      if (incoming.message.event.case === "stateDone") return { dump, numChannels, failure: null };
      try {
        add(incoming);
      } catch (error) {
        closeAll(incoming.fds);
        throw error;
      }
    }
  } catch (error) {
    return { dump, numChannels, failure: error instanceof Error ? error : new Error(String(error)) };
  }
}

async function next(connection: Connection): Promise<Incoming<ShadowEvent>> {
  const incoming = await receiveEvent(connection);
  if (incoming !== null) return incoming;
  const reason = connection.failure?.message ?? "the connection was closed";
  throw new ProtocolError(`Cannot receive a state dump: ${reason}`);
}

/**
 * Adds what an event of a dump says.
 *
 * @throws {ProtocolError} If it makes no sense there. The fds stay the caller's.
 */
export function addToDump(
  channels: StateDump["channels"],
  event: ShadowEvent["event"],
  fds: readonly Fd[],
): void {
  switch (event.case) {
    case "createChannel":
      if (channels.has(event.value.channelName)) {
        throw new ProtocolError(`Cannot accept channel ${event.value.channelName} twice in a state dump`);
      }
      channels.set(event.value.channelName, channelRecord(event.value, fds));
      return;
    case "addPublisher":
      return putPublisher(channelOf(channels, event.value.channelName), publisherRecord(event.value, fds));
    case "addSubscriber":
      return putSubscriber(
        channelOf(channels, event.value.channelName),
        subscriberRecord(event.value, fds),
      );
    case "registerClientBuffer": {
      const metadata = event.value.metadata ?? create(ClientBufferHandleMetadataProtoSchema);
      return putClientBuffer(channelOf(channels, metadata.channelName), { metadata, fd: fds[0] ?? null });
    }
    default:
      throw new ProtocolError(`Cannot accept ${event.case ?? "an unknown event"} in a state dump`);
  }
}

function channelOf(channels: Map<string, ChannelRecord>, name: string): ChannelRecord {
  const channel = channels.get(name);
  if (channel === undefined) {
    throw new ProtocolError(`Cannot accept an event for the unknown channel ${name}`);
  }
  return channel;
}

/** A channel without users, from an event and its fds. */
export function channelRecord(info: ShadowCreateChannel, [ccb, bcb]: readonly Fd[]): ChannelRecord {
  return { info, ccb, bcb, publishers: new Map(), subscribers: new Map(), clientBuffers: new Map() };
}

/** Adds a publisher. One with the same id is replaced, and its fds closed (section 9.2, 5). */
export function putPublisher(channel: ChannelRecord, publisher: PublisherRecord): void {
  const old = channel.publishers.get(publisher.info.publisherId);
  if (old !== undefined) closeAll(publisherFds(old));
  channel.publishers.set(publisher.info.publisherId, publisher);
}

/** Adds a subscriber. One with the same id is replaced, and its fds closed (section 9.2, 5). */
export function putSubscriber(channel: ChannelRecord, subscriber: SubscriberRecord): void {
  const old = channel.subscribers.get(subscriber.info.subscriberId);
  if (old !== undefined) closeAll(subscriberFds(old));
  channel.subscribers.set(subscriber.info.subscriberId, subscriber);
}

/** Adds a registered buffer, or replaces the registration of the same part. */
export function putClientBuffer(
  { clientBuffers }: Pick<ChannelRecord, "clientBuffers">,
  buffer: ClientBufferRecord,
): void {
  const key = clientBufferKey(buffer.metadata);
  clientBuffers.get(key)?.fd?.close();
  clientBuffers.set(key, buffer);
}
