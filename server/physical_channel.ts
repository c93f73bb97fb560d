/** The part of a channel that a multiplexer and its virtual channels share: id, memory, settings, user ids. */

import type { ControlBlocks } from "../shm/control_blocks.ts";
import { DEFAULT_QUEUE_CAPACITY, Limit, prefixBytes, slotBytesOfBuffer } from "../shm/layout.ts";
import { Registry } from "../shm/registry.ts";
import type { ChannelCounters } from "../shm/system_control_block.ts";
import type { ClientBufferRecord } from "../wire/state_dump.ts";
import { Channel, NO_VCHAN } from "./channel.ts";
import { IdPool } from "./id_pool.ts";
import { Census, type User } from "./users.ts";

/** Whether and how payloads are kept apart from prefixes; the first publisher decides. */
export interface SplitBufferOptions {
  readonly useSplitBuffers: boolean;
  readonly splitBuffersOverBridge: boolean;
}

/** What the buffers of a channel look like. */
export interface BufferLayout {
  /** 0 for a placeholder: a channel that never had a publisher. */
  readonly numSlots: number;
  /** Size of a slot where no buffer exists yet. */
  readonly slotBytes: number;
  readonly checksumBytes: number;
  readonly metadataBytes: number;
}

/** What is in front of each payload where no publisher said otherwise. */
export const DEFAULT_CHECKSUM_BYTES = 4;
export const DEFAULT_METADATA_BYTES = 0;

/**
 * A channel id and its memory.
 *
 * Invariants: `userIds` holds the ids of the users of `channel` and of the virtual channels (and of publishers that
 * are gone but not settled), `census` counts exactly these users; slots and queue arena never change once there are
 * slots.
 */
export class PhysicalChannel {
  /** The channel that bears its name, which has users of its own also where it is a multiplexer. */
  readonly channel: Channel;
  /** By virtual channel id; null where it is no multiplexer. */
  readonly virtualChannels: Map<number, Channel> | null;
  readonly userIds = new IdPool(Limit.users);
  readonly census = new Census();
  /** Registered parts of split buffers, by `clientBufferKey`. */
  readonly clientBuffers = new Map<string, ClientBufferRecord>();
  /** An opaque name; empty until somebody gives one. */
  type: Uint8Array<ArrayBufferLike> = new Uint8Array();
  layout: BufferLayout;
  /** Whether a publisher has confirmed the sizes in the layout, or buffers rely on them. */
  prefixKnown = false;
  splitBuffers: SplitBufferOptions | null = null;
  /** As the first publisher said, 0 for no limit; null while nobody did. */
  maxPublishers: number | null = null;
  /** As the first subscriber said, 0 for no limit; null while nobody did. */
  maxSubscribers: number | null = null;
  /** The options that shadows know, as text; null before they were told any. */
  #replicatedOptions: string | null = null;
  #blocks: ControlBlocks;
  #registry: Registry;
  #nextVchanId = 0;

  constructor(
    readonly id: number,
    name: string,
    multiplexer: boolean,
    readonly counters: ChannelCounters,
    layout: BufferLayout,
    blocks: ControlBlocks,
  ) {
    this.channel = new Channel(name, this, NO_VCHAN);
    this.virtualChannels = multiplexer ? new Map() : null;
    this.layout = layout;
    this.#blocks = blocks;
    this.#registry = new Registry(blocks);
  }

  /** The name that message buffers are called after. */
  get name(): string {
    return this.channel.name;
  }

  get blocks(): ControlBlocks {
    return this.#blocks;
  }

  get registry(): Registry {
    return this.#registry;
  }

  /** Takes new control blocks in place of the old ones, which are closed. */
  replaceBlocks(blocks: ControlBlocks): void {
    this.#blocks[Symbol.dispose]();
    this.#blocks = blocks;
    this.#registry = new Registry(blocks);
  }

  /** Notes that shadows know the options as they are now. Returns whether they did not. */
  noteOptionsReplicated(): boolean {
    const { splitBuffers, maxPublishers, maxSubscribers } = this;
    const options = JSON.stringify([splitBuffers, maxPublishers || 0, maxSubscribers || 0]);
    const changed = options !== this.#replicatedOptions;
    this.#replicatedOptions = options;
    return changed;
  }

  get isPlaceholder(): boolean {
    return this.layout.numSlots === 0;
  }

  get queueArenaBytes(): number {
    return this.#blocks.shape.queueArenaBytes;
  }

  /** Capacity of the queue of a subscriber that asks for none. */
  get defaultQueueCapacity(): number {
    return this.queueArenaBytes === 0 ? 0 : DEFAULT_QUEUE_CAPACITY;
  }

  /** Size of a slot in the newest message buffer, or as the publisher asked for where there is none yet. */
  get slotBytes(): number {
    const { numSlots, slotBytes, checksumBytes, metadataBytes } = this.layout;
    const numBuffers = this.#blocks.numBuffers;
    const bytes = numBuffers === 0 || numSlots === 0 ? 0 : this.#blocks.bufferBytes(numBuffers - 1);
    if (bytes === 0) return slotBytes;
    return Math.min(
      slotBytesOfBuffer(bytes, numSlots, prefixBytes(checksumBytes, metadataBytes)),
      Limit.slotBytes,
    );
  }

  /** The multiplexer and its virtual channels, or the channel alone. */
  *channels(): Generator<Channel> {
    yield this.channel;
    if (this.virtualChannels !== null) yield* this.virtualChannels.values();
  }

  *users(): Generator<User> {
    for (const channel of this.channels()) yield* channel.users();
  }

  /** The lowest virtual channel id that was never given out, or else any that is free. */
  proposeVchanId(): number {
    const taken = this.virtualChannels!;
    while (taken.has(this.#nextVchanId)) this.#nextVchanId++;
    if (this.#nextVchanId < Limit.virtualChannels) return this.#nextVchanId;
    for (let id = 0; id < Limit.virtualChannels; id++) if (!taken.has(id)) return id;
    return Limit.virtualChannels;
  }

  /** Lets go of the memory, which lives on as long as anybody else holds it. */
  close(): void {
    this.#blocks[Symbol.dispose]();
    for (const { fd } of this.clientBuffers.values()) fd?.close();
    this.clientBuffers.clear();
  }
}
