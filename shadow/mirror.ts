/**
 * The state that a shadow keeps: what its server's events add up to (specification, section 3.3). No I/O.
 *
 * Invariants: an fd that is handed in is kept or closed; the records and fds of a snapshot stay as they are until it
 * is released, whatever events come; the state belongs to one generation, which `init` begins.
 */

import { create } from "../proto/message.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { ClientBufferHandleMetadataProtoSchema, ShadowCreateChannelSchema } from "../proto/subspace.ts";
import type { ShadowEvent, ShadowUpdateChannelOptions } from "../proto/subspace_pb.ts";
import {
  channelFds,
  type ChannelRecord,
  channelRecord,
  clientBufferKey,
  type ClientBufferRecord,
  publisherFds,
  publisherRecord,
  type StateDump,
  subscriberFds,
  subscriberRecord,
} from "../wire/state_dump.ts";

/** Registered parts of split buffers of one channel. They cost no fd that would limit them. */
const CLIENT_BUFFERS_MAX = 1 << 18;

/** A mirror's state at one moment. Its fds stay open until it is released. */
export interface Snapshot extends StateDump, Disposable {}

class CopiedState implements Snapshot {
  readonly sessionId: bigint;
  readonly scb: Fd | null;
  readonly channels: Map<string, ChannelRecord>;
  /** What left the mirror while this was its newest snapshot: this one or an older one may still show it. */
  readonly retired: Fd[] = [];

  constructor(state: StateDump, private readonly release: (snapshot: CopiedState) => void) {
    this.sessionId = state.sessionId;
    this.scb = state.scb;
    const channels = [...state.channels.values()];
    // Physical channels first, so that a reader meets a multiplexer before its virtual channels.
    const ordered = [
      ...channels.filter((c) => c.info.mux === ""),
      ...channels.filter((c) => c.info.mux !== ""),
    ];
    this.channels = new Map(ordered.map((channel) => [channel.info.channelName, copyOf(channel)]));
  }

  [Symbol.dispose](): void {
    this.release(this);
  }
}

/** Records of users and buffers are never changed, only replaced: they can be shared. */
function copyOf(channel: ChannelRecord): ChannelRecord {
  return {
    ...channel,
    publishers: new Map(channel.publishers),
    subscribers: new Map(channel.subscribers),
    clientBuffers: new Map(channel.clientBuffers),
  };
}

function nothing(): StateDump {
  return { sessionId: 0n, scb: null, channels: new Map() };
}

/** Applies events to a state, and lends out snapshots of it. */
export class Mirror implements Disposable {
  #state = nothing();
  /** Unreleased ones, the oldest first. */
  readonly #snapshots: CopiedState[] = [];

  /** The state now. For reading: it changes with the next event. */
  get state(): StateDump {
    return this.#state;
  }

  /**
   * Applies an event.
   *
   * @param fds As many as `fdCount` of the event says; owned by the mirror from now on, also when it throws.
   * @throws {Error} If the event makes no sense here. Nothing has changed then.
   */
  apply({ event }: ShadowEvent, fds: readonly Fd[]): void {
    try {
      this.#change(event, fds);
    } catch (error) {
      closeAll(fds);
      throw error;
    }
  }

  #change(event: ShadowEvent["event"], fds: readonly Fd[]): void {
    switch (event.case) {
      case "init":
        return this.#begin({ sessionId: event.value.sessionId, scb: fds[0], channels: new Map() });
      case "createChannel":
        return this.#putChannel(event.value.channelName, channelRecord(event.value, fds));
      case "removeChannel":
        return this.#removeChannel(event.value.channelName);
      case "updateChannelOptions":
        return updateOptions(this.#channel(event.case, event.value.channelName), event.value);
      case "addPublisher": {
        const { publishers } = this.#channel(event.case, event.value.channelName);
        return this.#put(
          publishers,
          event.value.publisherId,
          publisherRecord(event.value, fds),
          publisherFds,
        );
      }
      case "removePublisher":
        return this.#remove(
          this.#find(event.value.channelName)?.publishers,
          event.value.publisherId,
          publisherFds,
        );
      case "addSubscriber": {
        const { subscribers } = this.#channel(event.case, event.value.channelName);
        return this.#put(
          subscribers,
          event.value.subscriberId,
          subscriberRecord(event.value, fds),
          subscriberFds,
        );
      }
      case "removeSubscriber":
        return this.#remove(
          this.#find(event.value.channelName)?.subscribers,
          event.value.subscriberId,
          subscriberFds,
        );
      case "registerClientBuffer": {
        const metadata = event.value.metadata ?? create(ClientBufferHandleMetadataProtoSchema);
        const { clientBuffers } = this.#channel(event.case, metadata.channelName);
        const key = clientBufferKey(metadata);
        if (clientBuffers.size >= CLIENT_BUFFERS_MAX && !clientBuffers.has(key)) {
          throw new Error(
            `Cannot register more than ${CLIENT_BUFFERS_MAX} buffers of channel ${metadata.channelName}`,
          );
        }
        return this.#put(clientBuffers, key, { metadata, fd: fds[0] ?? null }, clientBufferFds);
      }
      case "unregisterClientBuffer":
        return this.#unregister(event.value.channelName, event.value.sessionId, event.value.bufferIndex);
      case "requestState":
      case "stateComplete":
      case "resume":
      case "requestReport":
      case "rollback":
      case "forget":
        throw new Error(`Cannot apply ${event.case}: it changes nothing`);
      case "stateDump":
      case "stateDone":
      case "report":
      case "answer":
      case "briefChannel":
      case "bundle":
        throw new Error(`Cannot apply ${event.case}: it goes from a shadow to a server`);
      case undefined:
        throw new Error("Cannot apply an event of an unknown kind");
    }
  }

  #begin(state: StateDump): void {
    this.drop(this.take());
    this.#state = state;
  }

  /** A channel that is known gets new metadata and control blocks, and keeps its users and buffers. */
  #putChannel(name: string, record: ChannelRecord): void {
    const old = this.#find(name);
    if (old === undefined) {
      this.#state.channels.set(name, record);
      return;
    }
    this.#retire([old.ccb, old.bcb]);
    old.info = record.info;
    old.ccb = record.ccb;
    old.bcb = record.bcb;
  }

  #removeChannel(name: string): void {
    const channel = this.#find(name);
    if (channel === undefined) return;
    this.#state.channels.delete(name);
    this.#retire(channelFds(channel));
  }

  /** Adds a record or replaces the one with the same key, fds included: the newest is the true one (section 9.2, 5). */
  #put<K, V>(records: Map<K, V>, key: K, record: V, fdsOf: (record: V) => Fd[]): void {
    this.#remove(records, key, fdsOf);
    records.set(key, record);
  }

  #remove<K, V>(records: Map<K, V> | undefined, key: K, fdsOf: (record: V) => Fd[]): void {
    const record = records?.get(key);
    if (record === undefined) return;
    records!.delete(key);
    this.#retire(fdsOf(record));
  }

  #unregister(name: string, sessionId: bigint, bufferIndex: number): void {
    const buffers = this.#find(name)?.clientBuffers;
    if (buffers === undefined) return;
    for (const [key, { metadata }] of buffers) {
      if (metadata.sessionId === sessionId && metadata.bufferIndex === bufferIndex) {
        this.#remove(buffers, key, clientBufferFds);
      }
    }
  }

  #find(name: string): ChannelRecord | undefined {
    return this.#state.channels.get(name);
  }

  #channel(what: string, name: string): ChannelRecord {
    const channel = this.#find(name);
    if (channel === undefined) throw new Error(`Cannot apply ${what}: there is no channel ${name}`);
    return channel;
  }

  /** Takes the state out, with its fds, and leaves nothing. */
  take(): StateDump {
    return this.swap(nothing());
  }

  /** Takes the state out, with its fds, and leaves another one, of which it has the fds from now on. */
  swap(state: StateDump): StateDump {
    const taken = this.#state;
    this.#state = state;
    return taken;
  }

  /** Lets go of a state that was taken out. */
  drop({ scb, channels }: StateDump): void {
    if (scb !== null) this.#retire([scb]);
    for (const channel of channels.values()) this.#retire(channelFds(channel));
  }

  /**
   * A copy of the state as it is now, or of one that was taken out. Release it soon: fds that it shows stay open
   * until then.
   */
  snapshot(state = this.#state): Snapshot {
    const snapshot = new CopiedState(state, (released) => this.#release(released));
    this.#snapshots.push(snapshot);
    return snapshot;
  }

  /** How many fds stay open only because a snapshot may show them. */
  get heldFds(): number {
    return this.#snapshots.reduce((sum, { retired }) => sum + retired.length, 0);
  }

  /** Closes fds that left the state, or hands them to the newest snapshot, which or whose elders may show them. */
  #retire(fds: readonly Fd[]): void {
    const newest = this.#snapshots.at(-1);
    if (newest === undefined) closeAll(fds);
    else newest.retired.push(...fds);
  }

  #release(snapshot: CopiedState): void {
    const index = this.#snapshots.indexOf(snapshot);
    if (index < 0) return;
    this.#snapshots.splice(index, 1);
    const fds = snapshot.retired.splice(0);
    if (index === 0) closeAll(fds);
    else this.#snapshots[index - 1].retired.push(...fds);
  }

  /** Forgets everything. */
  [Symbol.dispose](): void {
    this.#begin(nothing());
  }
}

function clientBufferFds({ fd }: ClientBufferRecord): Fd[] {
  return fd === null ? [] : [fd];
}

/** A dump has no event for options: they are a part of the channel's own (section 3.2). */
function updateOptions(channel: ChannelRecord, options: ShadowUpdateChannelOptions): void {
  channel.info = create(ShadowCreateChannelSchema, {
    ...channel.info,
    hasSplitBufferOptions: options.hasSplitBufferOptions,
    useSplitBuffers: options.useSplitBuffers,
    splitBuffersOverBridge: options.splitBuffersOverBridge,
    hasMaxPublishers: options.hasMaxPublishers,
    maxPublishers: options.maxPublishers,
    hasMaxSubscribers: options.hasMaxSubscribers,
    maxSubscribers: options.maxSubscribers,
  });
}
