/** The message buffers of a channel as one end has them mapped (specification, sections 4.7, 5.2). */

import type { Fd } from "../ffi/fd.ts";
import { Mapping } from "../ffi/mapping.ts";
import { openNamed, setMode, setOwner, truncate, unlinkNamed } from "../ffi/memory_object.ts";
import { pollSync } from "../ffi/poll.ts";
import { arena } from "./arena.ts";
import { bufferName } from "./buffer_names.ts";
import { ControlBlockError, type ControlBlocks } from "./control_blocks.ts";
import { align64, bufferBytes, Limit, Prefix, prefixBytes, slotBytesOfBuffer } from "./layout.ts";

/** Which buffers, and how they are mapped. */
export interface BufferOptions {
  readonly sessionId: bigint;
  /** The channel's name; the multiplexer's for a virtual channel. */
  readonly resolvedName: string;
  readonly blocks: ControlBlocks;
  /** Room for a checksum, and for metadata, in the prefix in front of each payload. */
  readonly checksumBytes: number;
  readonly metadataBytes: number;
  readonly writable: boolean;
  /** Who owns the buffers made, where this process may say so. */
  readonly owner?: { readonly uid: number; readonly gid: number } | undefined;
}

/** A buffer; without a mapping where it is not mapped, or cannot be. */
interface Buffer {
  mapping: Mapping | null;
  slotBytes: number;
  /** Views of the slots, made on first use. */
  payloads: Uint8Array<ArrayBuffer>[];
  prefixes: Uint32Array<ArrayBuffer>[];
  parts: PrefixParts[];
}

/** Views of the parts of a prefix. */
export interface PrefixParts {
  /** The fixed part but the bridges' scratch word: what checksums are about. */
  readonly head: Uint8Array<ArrayBuffer>;
  readonly checksum: Uint8Array<ArrayBuffer>;
  readonly metadata: Uint8Array<ArrayBuffer>;
}

const MODE = 0o777;
/** How often, and how long each time, to wait for another publisher that has made a buffer and not yet its length. */
const LENGTH_TRIES = 50;
const LENGTH_WAIT_MS = 1;
/** Bytes of the core's table: a u32 per buffer. */
const TABLE_BYTES = 4 * Limit.buffers;

/**
 * Message buffers 0 to `count - 1`, the last of which has the largest slots.
 *
 * Invariant: a buffer of which a message is held stays mapped; the views of one that is unmapped are empty.
 */
export class MessageBuffers implements Disposable {
  readonly #options: BufferOptions;
  readonly #arena = arena();
  readonly #buffers: Buffer[] = [];
  /** Buffers but the last that are mapped: those that may be unmapped one day. */
  #numOlder = 0;
  #newestSlotBytes = 0;
  /** Address of the slot size of each buffer, 0 where it is not mapped: the core's `slotBytes`. */
  readonly table: number;
  readonly #prefixBytes: number;

  constructor(options: BufferOptions) {
    this.#options = options;
    this.#prefixBytes = prefixBytes(options.checksumBytes, options.metadataBytes);
    this.table = this.#arena.allocate(TABLE_BYTES);
  }

  /** Buffers known, mapped or not. */
  get count(): number {
    return this.#buffers.length;
  }

  /** Slot size of the last buffer; 0 where there is none. */
  get newestSlotBytes(): number {
    return this.#newestSlotBytes;
  }

  slotBytes(index: number): number {
    return this.#buffers[index].slotBytes;
  }

  /** The whole payload area of a slot. The same view every time. */
  payload(index: number, slotId: number): Uint8Array<ArrayBuffer> {
    const buffer = this.#buffers[index];
    return buffer.payloads[slotId] ??= this.#makePayload(buffer, slotId);
  }

  /** The fixed part of a slot's prefix, as words. The same view every time. */
  prefix(index: number, slotId: number): Uint32Array<ArrayBuffer> {
    const buffer = this.#buffers[index];
    return buffer.prefixes[slotId] ??= this.#makePrefix(buffer, slotId);
  }

  /** The parts of a slot's prefix. The same views every time. */
  parts(index: number, slotId: number): PrefixParts {
    const buffer = this.#buffers[index];
    return buffer.parts[slotId] ??= this.#makeParts(buffer, slotId);
  }

  /**
   * For a publisher: maps the buffers that there are and, if none has slots of this size, makes one (section 5.2).
   *
   * @throws {Error} If the channel cannot have another buffer, or the kernel refuses one.
   */
  ensure(slotBytes: number): void {
    const { blocks, resolvedName } = this.#options;
    const wanted = Math.max(64, align64(slotBytes));
    if (wanted > Limit.slotBytes) {
      throw new RangeError(
        `Cannot make slots of ${slotBytes} bytes for channel ${resolvedName}: ${Limit.slotBytes} is the limit`,
      );
    }
    for (let tries = 0; tries <= Limit.buffers; tries++) {
      const announced = blocks.numBuffers;
      while (this.count < announced || this.newestSlotBytes < wanted) {
        this.#add(wanted, this.count < announced);
      }
      if (this.count === announced || blocks.announceBuffers(announced, this.count)) return;
    }
    throw new ControlBlockError(
      `Cannot announce the buffers of channel ${resolvedName}: their number keeps changing`,
    );
  }

  /** For a subscriber: looks for buffers that were made since. Those that cannot be had stay unmapped for now. */
  refresh(): void {
    const announced = this.#options.blocks.numBuffers;
    while (this.count < announced) this.#push(this.#open(this.count));
  }

  /** Makes sure that a buffer is mapped. Returns false if it does not exist, or has no slots. */
  map(index: number): boolean {
    this.refresh();
    const buffer = this.#buffers[index];
    if (buffer === undefined) return false;
    if (buffer.mapping === null) {
      const mapping = this.#open(index);
      if (mapping === null) return false;
      this.#use(index, mapping);
    }
    return true;
  }

  /**
   * Unmaps buffers but the last that no slot is assigned to and no message is held of. Cheap where there are none.
   *
   * @param held Per slot, 1 + the buffer of the message held, 0 for none.
   */
  unmapUnused(held?: Uint16Array): void {
    if (this.#numOlder === 0) return;
    for (let index = 0; index < this.count - 1; index++) {
      const buffer = this.#buffers[index];
      if (buffer.mapping === null || this.#options.blocks.bufferRefs(index) > 0) continue;
      if (held?.includes(index + 1)) continue;
      this.#drop(index);
    }
  }

  [Symbol.dispose](): void {
    for (let index = 0; index < this.count; index++) this.#drop(index);
    this.#buffers.length = 0;
    this.#arena.free(this.table, TABLE_BYTES);
  }

  /** Maps the next buffer, or makes it. */
  #add(slotBytes: number, announced: boolean): void {
    const index = this.count;
    if (index >= Limit.buffers) {
      throw new Error(
        `Cannot grow channel ${this.#options.resolvedName} to slots of ${slotBytes} bytes: it has grown ${index} times already`,
      );
    }
    const mapping = (announced ? null : this.#create(index, slotBytes)) ?? this.#open(index, LENGTH_TRIES);
    if (mapping === null) {
      throw new Error(
        announced
          ? `Cannot use message buffer ${
            this.#name(index)
          }: it is announced, and does not exist or has no length`
          : `Cannot use message buffer ${
            this.#name(index)
          }: it has no length, so the publisher that made it has died; ` +
            `remove /dev/shm/${this.#name(index)}`,
      );
    }
    this.#push(mapping);
    this.#options.blocks.setBufferBytes(index, mapping.byteLength);
  }

  /** Makes a buffer; null where it exists. */
  #create(index: number, slotBytes: number): Mapping | null {
    const { blocks, owner } = this.#options;
    using fd = openNamed(this.#name(index), { create: true });
    if (fd === null) return null;
    try {
      const bytes = bufferBytes(blocks.numSlots, slotBytes, this.#prefixBytes);
      truncate(fd, bytes);
      setMode(fd, MODE);
      if (owner !== undefined) setOwner(fd, owner.uid, owner.gid);
      return Mapping.map(fd, bytes);
    } catch (error) {
      unlinkNamed(this.#name(index));
      throw error;
    }
  }

  /** Maps a buffer that exists; null where it does not, or after so many looks still has no length. */
  #open(index: number, tries = 1): Mapping | null {
    const { writable, resolvedName } = this.#options;
    using fd = openNamed(this.#name(index), { writable });
    if (fd === null) return null;
    const bytes = lengthOf(fd, tries);
    if (bytes === 0) return null;
    const slotBytes = this.#slotBytesOf(bytes);
    if (slotBytes < 64 || slotBytes % 64 !== 0) {
      throw new ControlBlockError(
        `Cannot use message buffer ${
          this.#name(index)
        }: its ${bytes} bytes are no ${this.#options.blocks.numSlots} ` +
          `slots of channel ${resolvedName} with prefixes of ${this.#prefixBytes} bytes`,
      );
    }
    return Mapping.map(fd, bytes, { writable });
  }

  #push(mapping: Mapping | null): void {
    const index = this.count;
    if (index > 0 && this.#buffers[index - 1].mapping !== null) this.#numOlder++;
    this.#buffers.push({ mapping: null, slotBytes: 0, payloads: [], prefixes: [], parts: [] });
    this.#newestSlotBytes = 0;
    if (mapping !== null) this.#use(index, mapping);
  }

  #use(index: number, mapping: Mapping): void {
    const buffer = this.#buffers[index];
    buffer.mapping = mapping;
    buffer.slotBytes = this.#slotBytesOf(mapping.byteLength);
    this.#arena.u32[(this.table >>> 2) + index] = buffer.slotBytes;
    if (index < this.count - 1) this.#numOlder++;
    else this.#newestSlotBytes = buffer.slotBytes;
  }

  #drop(index: number): void {
    const buffer = this.#buffers[index];
    if (buffer.mapping === null) return;
    buffer.mapping.unmap();
    buffer.mapping = null;
    buffer.payloads = [];
    buffer.prefixes = [];
    buffer.parts = [];
    this.#arena.u32[(this.table >>> 2) + index] = 0;
    if (index < this.count - 1) this.#numOlder--;
  }

  #slotBytesOf(bytes: number): number {
    return slotBytesOfBuffer(bytes, this.#options.blocks.numSlots, this.#prefixBytes);
  }

  #name(index: number): string {
    return bufferName(this.#options.sessionId, this.#options.resolvedName, index);
  }

  #makePayload(buffer: Buffer, slotId: number): Uint8Array<ArrayBuffer> {
    const start = this.#prefixStart(buffer, slotId) + this.#prefixBytes;
    return new Uint8Array(mapped(buffer).buffer, start, buffer.slotBytes);
  }

  #makePrefix(buffer: Buffer, slotId: number): Uint32Array<ArrayBuffer> {
    return new Uint32Array(
      mapped(buffer).buffer,
      this.#prefixStart(buffer, slotId),
      Prefix.fixedBytes / 4,
    );
  }

  #makeParts(buffer: Buffer, slotId: number): PrefixParts {
    const { checksumBytes, metadataBytes } = this.#options;
    const start = this.#prefixStart(buffer, slotId), memory = mapped(buffer).buffer;
    return {
      head: new Uint8Array(memory, start + Prefix.slot, Prefix.fixedBytes - Prefix.slot),
      checksum: new Uint8Array(memory, start + Prefix.checksum, checksumBytes),
      metadata: new Uint8Array(memory, start + Prefix.checksum + checksumBytes, metadataBytes),
    };
  }

  #prefixStart(buffer: Buffer, slotId: number): number {
    return (this.#prefixBytes + buffer.slotBytes) * slotId;
  }
}

function mapped(buffer: Buffer): Mapping {
  if (buffer.mapping === null) throw new Error("Cannot look into a message buffer: it is not mapped");
  return buffer.mapping;
}

/** The length of a file that may just be being made; 0 where it has none after so many looks. */
function lengthOf(fd: Fd, tries: number): number {
  for (let i = 1;; i++) {
    const { bytes } = fd.stat();
    if (bytes > 0 || i >= tries) return bytes;
    pollSync([], LENGTH_WAIT_MS);
  }
}
