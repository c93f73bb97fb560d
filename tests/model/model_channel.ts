/** A channel in the memory of a model: control blocks as the server makes them, and the private structs of its users. */

import assert from "node:assert/strict";
import { Mapping } from "../../ffi/mapping.ts";
import { arena } from "../../shm/arena.ts";
import { ControlBlocks } from "../../shm/control_blocks.ts";
import type { CoreExports } from "../../shm/core_exports.ts";
import {
  Bitset,
  Ccb,
  controlBlockOffsets,
  decodeRefs,
  Doorbells,
  Limit,
  QueueIndex,
  type RefsFields,
  Scb,
  Slot,
} from "../../shm/layout.ts";
import {
  ChannelStruct,
  PublisherStruct,
  RingerStruct,
  SnapshotEntry,
  SubscriberStruct,
} from "../../shm/structs.ts";
import { SystemControlBlock } from "../../shm/system_control_block.ts";
import { setQuietRanges } from "./traced_core.ts";

const PAGE = 64 * 1024;
/** Control blocks, where the traced core takes steps. Private structs are below, the core's own lowest. */
export const SHARED = 4 * PAGE;
const COUNTERS = SHARED, BCB = SHARED + 64, CCB = BCB + Doorbells.bytes + 64;
export const SUBSCRIBER_BELL = BCB + Doorbells.subscribers, PUBLISHER_BELL = BCB + Doorbells.publishers;

/** The channel's initial memory, as the server makes it. */
export interface ChannelImage {
  readonly ccb: Uint8Array;
  readonly struct: Uint32Array;
}

export function channelImage(numSlots: number): ChannelImage {
  using scb = SystemControlBlock.create();
  const shape = { channelName: "model", numSlots, queueArenaBytes: 0 };
  using blocks = ControlBlocks.create(shape, scb.counters(0));
  using mapping = Mapping.map(blocks.ccbFd, blocks.bytes);
  const { u32 } = arena(), word = blocks.struct >>> 2;
  const struct = u32.slice(word, word + ChannelStruct.bytes / 4);
  // Addresses in the arena become addresses in the model.
  const ccb = struct[ChannelStruct.ccb / 4];
  for (let i = 0; i < struct.length; i++) {
    if (struct[i] >= ccb && struct[i] <= ccb + blocks.bytes) struct[i] += CCB - ccb;
  }
  struct[ChannelStruct.bcb / 4] = BCB;
  struct[ChannelStruct.counters / 4] = COUNTERS;
  return { ccb: mapping.bytes.slice(), struct };
}

/** What nobody ever writes needs no step: looking there commutes with whatever others do. User ids are below `numUsers`. */
function passOverUnwritten(
  memory: WebAssembly.Memory,
  ccb: number,
  numSlots: number,
  numUsers: number,
): void {
  const subscribers = ccb + Ccb.subscribers + Bitset.words;
  const active = ccb + controlBlockOffsets(numSlots, 0).queueIndex + QueueIndex.activePublishers;
  setQuietRanges(memory, [
    [ccb + Ccb.numSubs + 4, ccb + Ccb.numSubs + 4 * Limit.users],
    [subscribers + 8, subscribers + Limit.users / 8],
    [active + 4 * numUsers, active + 4 * Limit.users],
  ]);
}

/** The channel of one run. */
export class ModelChannel {
  readonly view: DataView;
  readonly u8: Uint8Array;
  /** Address of its struct. */
  readonly address = PAGE;
  readonly scratch: number;
  #free = PAGE + ChannelStruct.bytes;

  /** @param numUsers Ids are below. */
  constructor(
    memory: WebAssembly.Memory,
    readonly plain: CoreExports,
    { ccb, struct }: ChannelImage,
    readonly numSlots: number,
    numUsers: number,
  ) {
    this.u8 = new Uint8Array(memory.buffer);
    this.view = new DataView(memory.buffer);
    this.u8.fill(0, PAGE, CCB);
    this.u8.set(ccb, CCB);
    new Uint32Array(memory.buffer, this.address, struct.length).set(struct);
    this.view.setInt32(CCB + Ccb.numBuffers, 1, true);
    this.scratch = this.allocate(4 * Limit.users);
    passOverUnwritten(memory, CCB, numSlots, numUsers);
  }

  allocate(bytes: number): number {
    const address = this.#free;
    this.#free += Math.ceil(bytes / 64) * 64;
    assert(this.#free <= SHARED);
    return address;
  }

  count(counter: number, by: number): void {
    this.view.setUint16(COUNTERS + counter, this.view.getUint16(COUNTERS + counter, true) + by, true);
  }

  get numSubUpdates(): number {
    return this.view.getUint16(COUNTERS + Scb.numSubUpdates, true);
  }

  refs(slotId: number): RefsFields {
    const slot = CCB + Ccb.slots + Slot.bytes * slotId;
    return decodeRefs(this.view.getBigUint64(slot + Slot.refs, true));
  }

  /** The struct of a publisher that the server knows. */
  addPublisher(id: number, reliable: boolean): number {
    const struct = this.allocate(PublisherStruct.bytes);
    const set = (field: number, value: number) => this.view.setInt32(struct + field, value, true);
    set(PublisherStruct.channel, this.address);
    set(PublisherStruct.id, id);
    set(PublisherStruct.vchan, -1);
    set(PublisherStruct.reliable, reliable ? 1 : 0);
    set(PublisherStruct.numBuffers, 1);
    if (!reliable) set(PublisherStruct.victims, this.allocate(SnapshotEntry.bytes * this.numSlots));
    this.count(Scb.numPubs, 1);
    return struct;
  }

  /** What a client finds out for its reliable publisher: who is unreliable, and who is of ours. */
  tellKinds(publisher: number, { unreliable, ours }: { unreliable: number[]; ours: number[] }): void {
    this.#setIds(publisher + PublisherStruct.exempt, unreliable);
    this.view.setUint32(publisher + PublisherStruct.exemptStamp, this.numSubUpdates, true);
    this.view.setUint32(publisher + PublisherStruct.exemptKnown, 1, true);
    this.#setIds(publisher + PublisherStruct.trusted, ours);
    this.view.setUint32(publisher + PublisherStruct.trustStamp, this.numSubUpdates, true);
  }

  #setIds(bits: number, ids: Iterable<number>): void {
    this.u8.fill(0, bits, bits + Limit.users / 8);
    for (const id of ids) this.u8[bits + (id >> 3)] |= 1 << (id & 7);
  }

  /** The struct of a subscriber that the server knows. */
  addSubscriber(id: number, reliable: boolean, maxActive: number): number {
    const struct = this.allocate(SubscriberStruct.bytes), slotBytes = this.allocate(4);
    this.view.setUint32(slotBytes, 64, true);
    const set = (field: number, value: number) => this.view.setInt32(struct + field, value, true);
    set(SubscriberStruct.channel, this.address);
    set(SubscriberStruct.id, id);
    set(SubscriberStruct.vchan, -1);
    set(SubscriberStruct.reliable, reliable ? 1 : 0);
    set(SubscriberStruct.detectDrops, 1);
    set(SubscriberStruct.maxActive, maxActive);
    set(SubscriberStruct.snapshot, this.allocate(SnapshotEntry.bytes * this.numSlots));
    set(SubscriberStruct.delivered, this.allocate(8 * this.numSlots));
    set(SubscriberStruct.lastOrdinals, this.allocate(8));
    set(SubscriberStruct.numBuffers, 1);
    set(SubscriberStruct.slotBytes, slotBytes);
    this.plain.registerSubscriber(this.address, id, -1, 0, this.scratch);
    this.count(Scb.numSubs, 1);
    if (reliable) this.count(Scb.numReliableSubs, 1);
    this.count(Scb.numSubUpdates, 1);
    return struct;
  }

  /** What can wake everybody on the other side. */
  addRinger(bell: number): number {
    const ringer = this.allocate(RingerStruct.bytes);
    this.view.setUint32(ringer + RingerStruct.bell, bell, true);
    this.u8.fill(0xff, ringer + RingerStruct.known, ringer + RingerStruct.known + Limit.users / 8);
    return ringer;
  }

  /**
   * What the reference's subscriber does in its first read (specification, section 5.7), for which ours sets bits only.
   *
   * @param step To be awaited before each access.
   */
  async populateAsTheReference(struct: number, id: number, step: () => Promise<void>): Promise<void> {
    const { available, availableStride } = controlBlockOffsets(this.numSlots, 0);
    const bits = CCB + available + availableStride * id + Bitset.words;
    const total = async () => (await step(), this.view.getBigUint64(CCB + Ccb.totalMessages, true));
    let before: bigint;
    do {
      before = await total();
      await step();
      this.view.setBigUint64(bits, 0n, true);
      for (let slotId = 0; slotId < this.numSlots; slotId++) {
        await step();
        const { owner } = this.refs(slotId);
        await step();
        const ordinal = this.view.getBigUint64(CCB + Ccb.slots + Slot.bytes * slotId + Slot.ordinal, true);
        if (ordinal === 0n || owner !== null) continue;
        await step();
        this.view.setBigUint64(bits, this.view.getBigUint64(bits, true) | 1n << BigInt(slotId), true);
      }
    } while (await total() !== before);
    this.view.setUint32(struct + SubscriberStruct.populated, 1, true);
  }

  /** What the server does some time after a subscriber has died. */
  freeReferences(reliableIds: Iterable<number>): void {
    const suspects = this.allocate(8 * this.numSlots), reliable = this.allocate(Limit.users / 8);
    this.#setIds(reliable, reliableIds);
    if (this.plain.suspectReferences(this.address, suspects) > 0) {
      this.plain.freeReferences(this.address, suspects, reliable);
    }
  }
}
