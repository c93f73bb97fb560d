/** A process's connection to a subspace server. */

import type { ChannelInfoProto, ChannelStatsProto } from "../proto/subspace_pb.ts";
import { openAnswer } from "./answer.ts";
import { type ConnectionChange, Control } from "./control.ts";
import { Publisher } from "./publisher.ts";
import type { PublisherOptions } from "./publisher_options.ts";
import { newToken } from "./token.ts";
import { Subscriber } from "./subscriber.ts";
import type { SubscriberOptions } from "./subscriber_options.ts";

/** How to connect. */
export interface ConnectOptions {
  /** Name of the server's socket. Default: `/tmp/subspace`. */
  socket?: string;
  /** What the server and its tools call this client. Default: the empty string. */
  name?: string;
  /** How long to wait for a server that is not there yet, in milliseconds. Default: 0. */
  waitMs?: number;
  /** How long a request may take, in milliseconds, the time included that the server is away. Default: 10 000. */
  requestTimeoutMs?: number;
  /**
   * Whether eventfds are written only to wake somebody who sleeps, where both are clients of this library and so is
   * their server (docs/extensions.md). Others notice nothing of it. Default: true.
   */
  doorbell?: boolean;
  /** Told when the server goes, and when it is back. Must not throw. */
  onConnectionChange?: (change: ConnectionChange) => void;
}

/** A publisher or subscriber, as the server knows it. */
export interface ParticipantInfo {
  readonly id: number;
  /** As the client said. */
  readonly pid: number;
  /** The name of its client. */
  readonly clientName: string;
  readonly kind: "publisher" | "subscriber";
  readonly reliable: boolean;
}

/** A channel, as the server knows it. */
export interface ChannelInfo {
  readonly name: string;
  readonly channelId: number;
  /** Bytes of a slot to begin with: it may have grown since. */
  readonly slotBytes: number;
  /** 0: it has had no publisher yet. */
  readonly numSlots: number;
  readonly type: Uint8Array;
  readonly numPublishers: number;
  readonly numSubscribers: number;
  readonly reliable: boolean;
  /** Those whose clients are connected now. */
  readonly participants: readonly ParticipantInfo[];
}

/** What went through a channel since it was made. */
export interface ChannelStats {
  readonly name: string;
  readonly totalBytes: number;
  /** Publications, including the one that announces a reliable publisher. */
  readonly totalMessages: number;
  readonly maxMessageBytes: number;
  /** Messages that subscribers missed. */
  readonly totalDrops: number;
  readonly slotBytes: number;
  readonly numSlots: number;
  readonly numPublishers: number;
  readonly numSubscribers: number;
}

/** What shared memory counts of a channel. */
export interface ChannelCounterValues {
  /** Publishers that came or went, modulo 65536. */
  readonly publisherUpdates: number;
  /** Subscribers that came or went, modulo 65536. */
  readonly subscriberUpdates: number;
  readonly publishers: number;
  readonly reliablePublishers: number;
  readonly subscribers: number;
  readonly reliableSubscribers: number;
  /** As of the last time that a C++ client asked the server for it. */
  readonly resizes: number;
}

/**
 * A connection to a subspace server.
 *
 * The server may go away at any moment: publishers and subscribers of this client go on exchanging messages, and when
 * a server is back, everything is made known to it again without being asked to. With the server's state restored
 * (by its shadow) nothing is lost; else the channels start anew, and `onConnectionChange` says which.
 *
 * It keeps the process alive until it is closed.
 *
 * @example Publish and subscribe
 * ```ts
 * import { Client } from "@subspace/deno";
 *
 * await using client = await Client.connect();
 * const publisher = await client.createPublisher("/imu", { slotBytes: 256, numSlots: 16 });
 * const subscriber = await client.createSubscriber("/imu");
 * publisher.publish(new TextEncoder().encode("hello"));
 * using message = subscriber.read();
 * console.log(new TextDecoder().decode(message?.data));
 * ```
 */
export class Client implements Disposable, AsyncDisposable {
  readonly #control: Control;

  private constructor(control: Control) {
    this.#control = control;
  }

  /**
   * Connects to a server.
   *
   * @throws {ConnectionError} If there is none.
   * @throws {TimeoutError} If it does not answer in time.
   */
  static async connect(options: ConnectOptions = {}): Promise<Client> {
    const control = new Control({
      socket: options.socket ?? "/tmp/subspace",
      name: options.name ?? "",
      token: newToken(),
      requestTimeoutMs: options.requestTimeoutMs ?? 10_000,
      doorbell: options.doorbell ?? true,
      onConnectionChange: options.onConnectionChange ?? (() => {}),
    });
    await control.start(options.waitMs ?? 0);
    return new Client(control);
  }

  /** Whether a server is there that knows all publishers and subscribers of this client. */
  get connected(): boolean {
    return this.#control.connected;
  }

  /** How many times a server went and another one took over. */
  get reattachments(): number {
    return this.#control.reattachments;
  }

  /**
   * Creates a publisher, and the channel where there is none.
   *
   * @throws {RequestError} If the server refuses, for example as the channel has another type or too few slots.
   * @throws {TimeoutError} If it does not answer in time.
   */
  createPublisher<Value = Uint8Array>(
    channel: string,
    options: PublisherOptions<Value>,
  ): Promise<Publisher<Value>> {
    return Publisher.create(this.#control, channel, options);
  }

  /**
   * Creates a subscriber. The channel needs no publisher yet.
   *
   * @throws {RequestError} If the server refuses.
   * @throws {TimeoutError} If it does not answer in time.
   */
  createSubscriber<Value = Uint8Array>(
    channel: string,
    options: SubscriberOptions<Value> = {},
  ): Promise<Subscriber<Value>> {
    return Subscriber.create(this.#control, channel, options);
  }

  /** Asks the server about one channel, or all. */
  channelInfo(channel = ""): Promise<ChannelInfo[]> {
    const what = `ask about ${channel || "all channels"}`;
    return this.#control.ask(
      what,
      { request: { case: "getChannelInfo", value: { channelName: channel } } },
      (answer) => openAnswer(answer, "getChannelInfo", what, ({ channels }) => channels.map(channelInfo)),
    );
  }

  /** Asks the server whether there is a channel of this name. */
  async channelExists(channel: string): Promise<boolean> {
    return (await this.channelInfo()).some(({ name }) => name === channel);
  }

  /**
   * Reads how often a channel's users have changed, and how many there are; of a virtual channel, those of its
   * multiplexer.
   *
   * @throws {RequestError} If there is no such channel.
   */
  async channelCounters(channel: string): Promise<ChannelCounterValues> {
    const [{ channelId }] = await this.channelInfo(channel);
    const counters = this.#control.session.scb.counters(channelId);
    const { numPubUpdates, numSubUpdates, numPubs, numReliablePubs, numSubs, numReliableSubs, numResizes } =
      counters;
    return {
      publisherUpdates: numPubUpdates,
      subscriberUpdates: numSubUpdates,
      publishers: numPubs,
      reliablePublishers: numReliablePubs,
      subscribers: numSubs,
      reliableSubscribers: numReliableSubs,
      resizes: numResizes,
    };
  }

  /** Asks the server what went through one channel, or all. */
  channelStats(channel = ""): Promise<ChannelStats[]> {
    const what = `ask for the statistics of ${channel || "all channels"}`;
    return this.#control.ask(
      what,
      { request: { case: "getChannelStats", value: { channelName: channel } } },
      (answer) => openAnswer(answer, "getChannelStats", what, ({ channels }) => channels.map(channelStats)),
    );
  }

  /** Closes all publishers and subscribers at once; resolves when the server knows, a second later at the most. */
  close(): Promise<void> {
    return this.#control.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Closes everything at once, and tells the server by hanging up. */
  [Symbol.dispose](): void {
    this.#control.abort();
  }
}

function channelInfo(proto: ChannelInfoProto): ChannelInfo {
  return {
    name: proto.name,
    channelId: proto.channelId,
    slotBytes: proto.slotSize,
    numSlots: proto.numSlots,
    type: proto.type,
    numPublishers: proto.numPubs,
    numSubscribers: proto.numSubs,
    reliable: proto.isReliable,
    participants: proto.participants.map((user) => ({
      id: user.id,
      pid: Number(user.pid),
      clientName: user.programName,
      kind: user.isPublisher ? "publisher" : "subscriber",
      reliable: user.isReliable,
    } as const)).sort((a, b) => a.id - b.id),
  };
}

function channelStats(proto: ChannelStatsProto): ChannelStats {
  return {
    name: proto.channelName,
    totalBytes: Number(proto.totalBytes),
    totalMessages: Number(proto.totalMessages),
    maxMessageBytes: proto.maxMessageSize,
    totalDrops: proto.totalDrops,
    slotBytes: proto.slotSize,
    numSlots: proto.numSlots,
    numPublishers: proto.numPubs,
    numSubscribers: proto.numSubs,
  };
}
