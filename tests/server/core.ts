/** A server without its socket: a channel table and the links to its shadows. Dies and comes back on command. */

import type { Channel } from "../../server/channel.ts";
import type { ChannelTable } from "../../server/channel_table.ts";
import { systemHost } from "../../server/host.ts";
import { type ShadowNames, startWithShadows } from "../../server/recovery.ts";
import type { Replication } from "../../server/replication.ts";
import type { ShadowPatience } from "../../server/shadow_link.ts";
import { Client, type Publisher, type Subscriber } from "../../server/users.ts";
import type { ChannelRecord } from "../../wire/state_dump.ts";

export interface ChannelTraits {
  numSlots?: number;
  slotBytes?: number;
  checksumBytes?: number;
  metadataBytes?: number;
  queueArenaBytes?: number;
  type?: string;
}

export class Core implements AsyncDisposable {
  #up = true;
  /** All users belong to one client, which is this process. */
  readonly client = new Client(Deno.pid);

  private constructor(readonly table: ChannelTable, readonly replication: Replication) {}

  static async start(names: ShadowNames, patience?: ShadowPatience): Promise<Core> {
    const { table, replication } = await startWithShadows(names, systemHost, patience);
    table.effects = {
      replicate: (event, fds) => replication.replicate(event, fds),
      directoryChanged: () => {},
    };
    return new Core(table, replication);
  }

  channel(name: string, traits: ChannelTraits = {}, multiplexer = false): Channel {
    const { numSlots = 4, slotBytes = 256, checksumBytes = 4, metadataBytes = 0, queueArenaBytes = 0 } =
      traits;
    return this.table.createChannel(name, multiplexer, {
      layout: { numSlots, slotBytes, checksumBytes, metadataBytes },
      queueArenaBytes,
      type: new TextEncoder().encode(traits.type ?? ""),
    });
  }

  publisher(channel: Channel, traits: Partial<Publisher["record"]["info"]> = {}): Publisher {
    return this.table.addPublisher(channel, this.client, {
      isReliable: false,
      isLocal: false,
      isBridge: false,
      isFixedSize: false,
      notifyRetirement: false,
      forTunnel: false,
      processId: BigInt(Deno.pid),
      maxOutstandingSlotLeases: 1,
      doorbell: false,
      ...traits,
    });
  }

  subscriber(channel: Channel, traits: Partial<Subscriber["record"]["info"]> = {}): Subscriber {
    return this.table.addSubscriber(channel, this.client, {
      isReliable: false,
      isBridge: false,
      maxActiveMessages: 1,
      forTunnel: false,
      subscriberQueueSize: 0,
      doorbell: false,
      processId: BigInt(Deno.pid),
      ...traits,
    });
  }

  /** Ends as a killed process does: the links close, and nobody is told anything. */
  async crash(): Promise<void> {
    if (!this.#up) return;
    this.#up = false;
    await this.replication.close();
    this.table.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.crash();
  }
}

/** What two tables must have in common to be the same to every client: all records, and the memory. */
export function describe(records: Iterable<ChannelRecord>): unknown {
  const channels = [...records].map(({ info, ccb, bcb, publishers, subscribers, clientBuffers }) => ({
    info,
    memory: [ccb.stat().inode, bcb.stat().inode],
    publishers: inOrder([...publishers].map(([id, record]) => [id, record.info])),
    subscribers: inOrder([...subscribers].map(([id, record]) => [id, record.info])),
    buffers: inOrder([...clientBuffers].map(([key, { metadata, fd }]) => [key, metadata, fd?.stat().inode])),
  }));
  return channels.sort((a, b) => a.info.channelName < b.info.channelName ? -1 : 1);
}

/** Sorted by what comes first in each: a dump has no order (section 3.2). */
function inOrder<Row extends [number | string, ...unknown[]]>(rows: Row[]): Row[] {
  return rows.sort(([a], [b]) => a < b ? -1 : 1);
}

/** Described state, as a shadow's own socket gives it: without what only ours say. */
export function inOldProtocol(state: unknown): unknown {
  const copy = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(copy);
    if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
    const members = Object.entries(value).map(([name, member]) => [name, copy(member)]);
    const ours = ["processStart", "pidNamespace", "requestToken"].filter((name) => name in value);
    return { ...Object.fromEntries(members), ...Object.fromEntries(ours.map((name) => [name, 0n])) };
  };
  return copy(state);
}
