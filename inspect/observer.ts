/**
 * Following the messages of a channel without being its subscriber.
 *
 * A subscriber takes an id and a place among the 1024 users, makes every publisher ask the server for its trigger,
 * and holds slots while it reads. So this side reads memory instead: slots are copied, payloads are read from the
 * files that hold them and count only if their slot had the same message before and after. Nobody can notice, and
 * nobody waits; what is overwritten before it was read is missed, and counted.
 */

import type { Fd } from "../ffi/fd.ts";
import { openNamed } from "../ffi/memory_object.ts";
import { bufferName, splitObjectName, splitPath } from "../shm/buffer_names.ts";
import {
  readBufferList,
  readOrdinalCount,
  readSlotArray,
  type SlotReport,
  stillHas,
} from "../shm/inspection.ts";
import { Limit, Prefix, prefixBytes } from "../shm/layout.ts";
import type { SeenChannel } from "../wire/brief_dump.ts";
import type { ShadowSight } from "./sight.ts";

/** A message that went through a channel. */
export interface ObservedMessage {
  readonly ordinal: number;
  /** CLOCK_MONOTONIC at publication. */
  readonly timestampNs: number;
  readonly bytes: number;
  /** null where payloads are not asked for. */
  readonly payload: Uint8Array<ArrayBuffer> | null;
  /** What stands in front of it; empty where the channel has none, or payloads are not asked for. */
  readonly metadata: Uint8Array<ArrayBuffer>;
  /** Whether it only tells subscribers that a publisher is there. */
  readonly activation: boolean;
}

/** Where the messages of a channel come from. */
export interface MessageSource extends Disposable {
  /** Messages that went unseen. */
  readonly missed: number;
  /** The messages since the last call, in their order. */
  poll(withPayload: boolean): ObservedMessage[];
}

/** Its size crosses the wire as an int32 and is stored in 16 bits. */
const METADATA_BYTES_MAX = 0xffff;

/** Where a payload is in a file, what is behind it, and the metadata that belong to it. */
interface Place {
  readonly fd: Fd;
  readonly offset: number;
  readonly end: number;
  readonly metadata: Uint8Array<ArrayBuffer>;
}

const NO_BYTES = new Uint8Array();

/** Follows one channel. Keeps fds of its message buffers, and needs the sight as long as it lives. */
export class ChannelObserver implements MessageSource {
  #record: SeenChannel;
  readonly #sessionId: bigint;
  readonly #resolvedName: string;
  readonly #vchanId: number;
  readonly #checksumBytes: number;
  readonly #metadataBytes: number;
  readonly #buffers = new Map<string, Fd | null>();
  #ordinals: number;
  /** Ordinals that were in the slots at the last look. */
  #known: ReadonlySet<number>;
  #missed = 0;
  #highest: number;

  /**
   * Follows a channel of a shadow from now on.
   *
   * @param fromStart Whether what is in its memory already counts as new.
   */
  constructor(sight: ShadowSight, record: SeenChannel, fromStart = false) {
    const { info } = record;
    this.#record = record;
    this.#sessionId = sight.dump.sessionId;
    this.#resolvedName = info.mux === "" ? info.channelName : info.mux;
    this.#vchanId = info.mux === "" ? -1 : info.vchanId;
    this.#checksumBytes = info.checksumSize > 0 ? info.checksumSize : 4;
    this.#metadataBytes = Math.min(Math.max(0, info.metadataSize), METADATA_BYTES_MAX);
    this.#ordinals = fromStart ? 0 : this.#count();
    const present = fromStart ? [] : this.#slots();
    this.#known = new Set(present.map(({ ordinal }) => ordinal));
    this.#highest = present.reduce((highest, { ordinal }) => Math.max(highest, ordinal), this.#ordinals);
  }

  /** Goes on with the same channel in the same memory, as another sight shows it: with more buffers, perhaps. */
  goOn({ dump }: ShadowSight, record: SeenChannel): void {
    if (dump.sessionId === this.#sessionId) this.#record = record;
  }

  /** Messages that were overwritten before they could be looked at. */
  get missed(): number {
    return this.#missed;
  }

  /**
   * The messages since the last call, in their order.
   *
   * @param withPayload Whether to read what is in them.
   */
  poll(withPayload: boolean): ObservedMessage[] {
    const ordinals = this.#count();
    if (ordinals === this.#ordinals) return [];
    const present = this.#slots();
    const fresh = present.filter(({ ordinal }) => !this.#known.has(ordinal))
      .sort((a, b) => a.ordinal - b.ordinal);
    // Messages that have an ordinal and are not published yet are asked for again.
    if (fresh.length > 0 && fresh.at(-1)!.ordinal >= ordinals) this.#ordinals = ordinals;
    this.#known = new Set(present.map(({ ordinal }) => ordinal));
    return fresh.map((slot) => this.#take(slot, withPayload)).filter((message) => message !== null);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#buffers.values()) fd?.close();
    this.#buffers.clear();
  }

  #count(): number {
    return readOrdinalCount(this.#record.ccb, this.#vchanId) ?? 0;
  }

  /** The slots that have a message of this channel. */
  #slots(): SlotReport[] {
    const { ccb, info } = this.#record;
    return readSlotArray(ccb, info.numSlots).filter(({ owner, ordinal, vchanId }) =>
      owner === null && ordinal > 0 && (this.#vchanId < 0 || vchanId === this.#vchanId)
    );
  }

  #take(slot: SlotReport, withPayload: boolean): ObservedMessage | null {
    const { ordinal, timestampNs, messageSize, activation } = slot;
    if (ordinal > this.#highest) {
      this.#missed += ordinal - this.#highest - 1;
      this.#highest = ordinal;
    } else if (this.#missed > 0) {
      this.#missed--; // It is late: another publisher's message overtook it, and it was thought missed.
    }
    const message = { ordinal, timestampNs, bytes: messageSize, activation };
    if (!withPayload) return { ...message, payload: null, metadata: NO_BYTES };
    const content = this.#content(slot);
    if (content === null) this.#missed++;
    return content === null ? null : { ...message, ...content };
  }

  #content(
    { id, bufferIndex, messageSize, ordinal }: SlotReport,
  ): Pick<ObservedMessage, "payload" | "metadata"> | null {
    const { ccb, bcb, info } = this.#record;
    const buffer = readBufferList(ccb, bcb)[bufferIndex];
    if (buffer === undefined) return null;
    const place = info.useSplitBuffers
      ? this.#placeInSplit(bufferIndex, id)
      : this.#placeInWhole(bufferIndex, id, Math.floor(buffer.bytes / Math.max(1, info.numSlots)));
    if (place === null || messageSize > Limit.slotBytes) return null;
    // Sizes in shared memory may say anything.
    if (place.offset + messageSize > Math.min(place.end, place.fd.stat().bytes)) return null;
    const payload = new Uint8Array(messageSize);
    if (place.fd.readAt(place.offset, payload) !== messageSize) return null;
    return stillHas(ccb, id, ordinal) ? { payload, metadata: place.metadata } : null;
  }

  /** Where the payload of a slot is, in a buffer whose slots begin with their prefixes. */
  #placeInWhole(bufferIndex: number, id: number, stride: number): Place | null {
    const fd = this.#buffer(bufferIndex), start = id * stride;
    if (fd === null) return null;
    const prefix = this.#prefixAt(fd, start);
    return { fd, offset: start + prefix.bytes, end: start + stride, metadata: prefix.metadata };
  }

  #placeInSplit(bufferIndex: number, id: number): Place | null {
    const fd = this.#splitSlot(bufferIndex, id), prefixes = this.#splitPrefixes(bufferIndex);
    if (fd === null) return null;
    if (prefixes === null) return { fd, offset: 0, end: Infinity, metadata: NO_BYTES };
    // All are as long as the first one.
    const { metadata } = this.#prefixAt(prefixes, id * this.#prefixAt(prefixes, 0).bytes);
    return { fd, offset: 0, end: Infinity, metadata };
  }

  /**
   * How long a prefix is, and the metadata in it. That is what its publisher says: a shadow of the reference's does not
   * hear of sizes that are not the usual ones (section 9.2, 7).
   */
  #prefixAt(fd: Fd, offset: number): { bytes: number; metadata: Uint8Array<ArrayBuffer> } {
    const sizes = new Uint8Array(4), view = new DataView(sizes.buffer);
    const isThere = fd.readAt(offset + Prefix.checksumBytes, sizes) === sizes.length;
    const told = isThere ? view.getUint16(0, true) : 0;
    const checksumBytes = told === 0 ? this.#checksumBytes : told;
    const metadata = new Uint8Array(told === 0 ? this.#metadataBytes : view.getUint16(2, true));
    const stored = metadata.length === 0 ? 0 : fd.readAt(offset + Prefix.checksum + checksumBytes, metadata);
    return { bytes: prefixBytes(checksumBytes, metadata.length), metadata: metadata.subarray(0, stored) };
  }

  #buffer(index: number): Fd | null {
    return this.#open(
      `${index}`,
      (metadata) => metadata.bufferIndex === index && !metadata.isPrefix,
      bufferName(this.#sessionId, this.#resolvedName, index),
    );
  }

  #splitSlot(index: number, slot: number): Fd | null {
    return this.#open(
      `${index}/${slot}`,
      (metadata) => metadata.bufferIndex === index && !metadata.isPrefix && metadata.slotId === slot,
      splitObjectName(splitPath(this.#sessionId, this.#resolvedName, index, { slot })),
    );
  }

  #splitPrefixes(index: number): Fd | null {
    return this.#open(
      `${index}/prefixes`,
      (metadata) => metadata.bufferIndex === index && metadata.isPrefix,
      splitObjectName(splitPath(this.#sessionId, this.#resolvedName, index, "prefix")),
    );
  }

  /** A file that came with the dump, or one that has a name. */
  #open(
    key: string,
    isIt: (metadata: { bufferIndex: number; isPrefix: boolean; slotId: number }) => boolean,
    name: string,
  ): Fd | null {
    const known = this.#buffers.get(key);
    if (known !== undefined) return known;
    const registered = [...this.#record.clientBuffers.values()].find(({ fd, metadata }) =>
      fd !== null && isIt(metadata)
    );
    const fd = registered?.fd?.duplicate() ?? openNamed(name, { writable: false });
    if (fd !== null) this.#buffers.set(key, fd);
    return fd;
  }
}
