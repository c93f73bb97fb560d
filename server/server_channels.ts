/** The channels that the server publishes of itself: its directory, and statistics (specification, section 6). */

import { create, toBinary } from "../proto/message.ts";
import { getLogger } from "@logtape/logtape";
import { ChannelDirectorySchema, CreatePublisherRequestSchema, StatisticsSchema } from "../proto/subspace.ts";
import type { Timers } from "../ffi/system.ts";
import type { Trigger } from "../shm/doorbell.ts";
import { PublishingEnd } from "../shm/publishing.ts";
import type { ChannelTable } from "./channel_table.ts";
import { channelInfo, channelStats } from "./introspection.ts";
import { createPublisher, subscribersOf } from "./publisher_requests.ts";
import type { Client, Publisher, Subscriber } from "./users.ts";

const log = getLogger(["subspace", "server"]);

const SLOT_BYTES = 1024;
const NUM_SLOTS = 32;

/** After a change the directory waits for more, so that a burst of them makes one message. */
const DIRECTORY_DELAY_MS = 5;
/** Waiting is this many times as long as making the last message took: a directory of many channels costs little. */
const DIRECTORY_DELAY_FACTOR = 30;
const DIRECTORY_DELAY_MAX_MS = 1000;
/** After a recovery clients come back first: each of them changes what the directory says. */
const DIRECTORY_DELAY_RECOVERED_MS = 250;

/**
 * A publisher of the server on a channel of its own. It is a client like any other, but for the socket. A server that
 * cannot have it, as it has no fd left, serves all the same.
 */
class ServerPublisher {
  #publisher: Publisher | null = null;
  #end: PublishingEnd | null = null;
  /** Whether the last message could not be published, which is said once. */
  #failed = false;

  constructor(
    private readonly table: ChannelTable,
    private readonly client: Client,
    readonly name: string,
    private readonly type: string,
  ) {}

  /** Makes the publisher known; memory for messages is made with the first. */
  open(): void {
    this.#attempt(() => this.#publisher ??= this.#create());
  }

  /** Publishes a message. Returns whether it was. */
  publish(make: () => Uint8Array): boolean {
    return this.#attempt(() => {
      const end = this.#opened(), message = make();
      const buffer = end.buffer(message.length);
      if (buffer === null) throw new Error("subscribers hold all slots");
      buffer.set(message);
      end.setSubscriberTriggers(Array.from(subscribersOf(this.#publisher!.channel), triggerOf));
      end.publish(message.length);
    });
  }

  #attempt(act: () => void): boolean {
    try {
      act();
      this.#failed = false;
    } catch (error) {
      const reason = (error as Error).message;
      if (!this.#failed) log.error("Failed to publish {channel}: {reason}", { channel: this.name, reason });
      this.#failed = true;
    }
    return !this.#failed;
  }

  #opened(): PublishingEnd {
    const { channel, id } = this.#publisher ??= this.#create();
    const { blocks, layout } = channel.physical;
    return this.#end ??= new PublishingEnd({
      sessionId: this.table.sessionId,
      resolvedName: this.name,
      blocks,
      id,
      slotBytes: SLOT_BYTES,
      checksumBytes: layout.checksumBytes,
      metadataBytes: layout.metadataBytes,
    });
  }

  #create(): Publisher {
    const { table, client, name } = this;
    const { response } = createPublisher(
      table,
      client,
      create(CreatePublisherRequestSchema, {
        channelName: name,
        numSlots: NUM_SLOTS,
        slotSize: SLOT_BYTES,
        type: new TextEncoder().encode(this.type),
        vchanId: -1,
        publisherId: takeOver(table, name),
        processId: BigInt(client.pid),
      }),
    );
    if (response.case !== "createPublisher") throw new TypeError("Cannot publish without a publisher");
    return table.find(name)!.publishers.get(response.value.publisherId ?? 0)!;
  }

  close(): void {
    this.#end?.close();
  }

  abandon(): void {
    this.#end?.leave();
  }
}

/** How the server wakes a subscriber. */
function triggerOf({ id, record }: Subscriber): Trigger {
  return { fdNumber: record.trigger.number, sleeperId: record.info.doorbell ? id : -1 };
}

/** The id of the publisher that the last server left on a channel of its own, with its slot given back; -1 for none. */
function takeOver(table: ChannelTable, name: string): number {
  const channel = table.find(name);
  for (const { id, client } of channel?.publishers.values() ?? []) {
    if (client !== null) continue;
    channel!.physical.registry.removePublisher(id);
    return id;
  }
  return -1;
}

/** When and as whom the server publishes. */
export interface ServerChannelsOptions {
  /** Names this run of this server. */
  readonly serverId: string;
  /** Who publishes: the server as a client of itself. */
  readonly client: Client;
  readonly statisticsPeriodMs: number;
  readonly timers: Timers;
}

/**
 * `/subspace/ChannelDirectory`, published after changes, and `/subspace/Statistics`, published periodically, from the first
 * `resume` on.
 */
export class ServerChannels {
  readonly #directory: ServerPublisher;
  readonly #statistics: ServerPublisher;
  #directoryDelayMs = DIRECTORY_DELAY_MS;
  #cancelDirectory: (() => void) | null = null;
  #cancelStatistics: () => void = () => {};

  constructor(private readonly table: ChannelTable, private readonly options: ServerChannelsOptions) {
    const { client } = options;
    this.#directory = new ServerPublisher(
      table,
      client,
      "/subspace/ChannelDirectory",
      "subspace.ChannelDirectory",
    );
    this.#statistics = new ServerPublisher(table, client, "/subspace/Statistics", "subspace.Statistics");
  }

  /** The directory will be published soon, with all changes until then. */
  directoryChanged(): void {
    this.#cancelDirectory ??= this.options.timers.after(
      this.#directoryDelayMs,
      () => this.#publishDirectory(),
    );
  }

  #publishDirectory(): void {
    this.#cancelDirectory = null;
    const start = performance.now();
    const published = this.#directory.publish(() => {
      const channels = Array.from(this.table.channels(), channelInfo);
      const message = create(ChannelDirectorySchema, { serverId: this.options.serverId, channels });
      return toBinary(ChannelDirectorySchema, message);
    });
    const delay = DIRECTORY_DELAY_FACTOR * (performance.now() - start);
    this.#directoryDelayMs = published
      ? Math.min(Math.max(DIRECTORY_DELAY_MS, delay), DIRECTORY_DELAY_MAX_MS)
      : DIRECTORY_DELAY_MAX_MS;
    // What it could not say is still to be said.
    if (!published) this.directoryChanged();
  }

  #scheduleStatistics(): () => void {
    const { statisticsPeriodMs, timers } = this.options;
    return timers.after(statisticsPeriodMs, () => {
      this.#publishStatistics();
      this.#cancelStatistics = this.#scheduleStatistics();
    });
  }

  #publishStatistics(): void {
    this.#statistics.publish(() => {
      const { serverId } = this.options, timestamp = this.table.host.monotonicNs();
      const channels = Array.from(this.table.channels(), channelStats);
      return toBinary(StatisticsSchema, create(StatisticsSchema, { serverId, timestamp, channels }));
    });
  }

  /** Publishes nothing until `resume`. */
  suspend(): void {
    this.#cancelDirectory?.();
    this.#cancelDirectory = null;
    this.#cancelStatistics();
  }

  resume(): void {
    this.suspend();
    if (this.table.numOrphans > 0) this.#directoryDelayMs = DIRECTORY_DELAY_RECOVERED_MS;
    this.#directory.open();
    this.#statistics.open();
    this.#cancelStatistics = this.#scheduleStatistics();
    this.directoryChanged();
  }

  /** Stops publishing. The publishers stay in the table. */
  close(): void {
    this.suspend();
    this.#directory.close();
    this.#statistics.close();
  }

  /** Stops publishing, and touches no memory any more: another server does. */
  abandon(): void {
    this.suspend();
    this.#directory.abandon();
    this.#statistics.abandon();
  }
}
