/** The message buffers of a channel as one end has them mapped (specification, sections 4.7, 5.2). */

import { arena } from "./arena.ts";
import type { BufferMemory, BufferOptions, BufferSource } from "./buffer_memory.ts";
import { ControlBlockError } from "./control_blocks.ts";
import { align64, bufferBytes, Limit, Prefix, prefixBytes } from "./layout.ts";
import { SplitBuffers, type SplitOptions } from "./split_buffers.ts";
import { WholeBuffers } from "./whole_buffers.ts";

/** A buffer; without memory where it is not mapped, or cannot be. */
interface Buffer {
  memory: BufferMemory | null;
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

/** Bytes of the core's table: a u32 per buffer. */
const TABLE_BYTES = 4 * Limit.buffers;

/**
 * Message buffers 0 to `count - 1`, the last of which has the largest slots.
 *
 * Invariant: a buffer of which a message is held stays mapped; the views of one that is unmapped are empty.
 */
export class MessageBuffers implements Disposable {
  readonly #options: BufferOptions;
  readonly #source: BufferSource;
  readonly #arena = arena();
  readonly #buffers: Buffer[] = [];
  /** Buffers but the last that are mapped: those that may be unmapped one day. */
  #numOlder = 0;
  #newestSlotBytes = 0;
  /** Address of the slot size of each buffer, 0 where it is not mapped: the core's `slotBytes`. */
  readonly table: number;
  readonly #prefixBytes: number;

  /** @param split How the buffers are split; null: they are of one piece. */
  constructor(options: BufferOptions, split: SplitOptions | null) {
    this.#options = options;
    this.#source = split === null ? new WholeBuffers(options) : new SplitBuffers(options, split);
    this.#prefixBytes = prefixBytes(options.checksumBytes, options.metadataBytes);
    this.table = this.#arena.allocate(TABLE_BYTES);
  }

  /** Buffers known, mapped or not. */
  get count(): number {
    return this.#buffers.length;
  }

  /** Whether a buffer could not be mapped as the server is to say first where it is. */
  get asking(): boolean {
    return this.#source.asking;
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
   * Where a slot's payload is in the arena. It is mapped there when somebody asks.
   *
   * @throws {Error} If it cannot be, as it is a split buffer.
   * @throws {RangeError} If the arena has no room left.
   */
  address(index: number, slotId: number): number {
    const address = mapped(this.#buffers[index]).address(slotId);
    if (address !== null) return address;
    throw new Error(
      `Cannot tell an address on channel ${this.#options.resolvedName}: its buffers are split, and in no WebAssembly memory`,
    );
  }

  /** What a user's allocator calls the memory of a slot; null where none made it. */
  handle(index: number, slotId: number): bigint | null {
    return mapped(this.#buffers[index]).handle(slotId);
  }

  /**
   * For a publisher: maps the buffers that there are and, if none has slots of this size, makes one (section 5.2).
   *
   * @returns false where the server is to say first where a buffer is: try again when it has.
   * @throws {Error} If the channel cannot have another buffer, or the kernel refuses one.
   */
  ensure(slotBytes: number): boolean {
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
        if (!this.#add(wanted, this.count < announced)) return false;
      }
      if (this.count === announced || blocks.announceBuffers(announced, this.count)) return true;
    }
    throw new ControlBlockError(
      `Cannot announce the buffers of channel ${resolvedName}: their number keeps changing`,
    );
  }

  /** For a subscriber: looks for buffers that were made since. Those that cannot be had stay unmapped for now. */
  refresh(): void {
    const announced = this.#options.blocks.numBuffers;
    while (this.count < announced) this.#push(this.#source.open(this.count, false));
  }

  /** Makes sure that a buffer is mapped. Returns false if it does not exist, or has no slots. */
  map(index: number): boolean {
    this.refresh();
    const buffer = this.#buffers[index];
    if (buffer === undefined) return false;
    if (buffer.memory === null) {
      const memory = this.#source.open(index, false);
      if (memory === null) return false;
      this.#use(index, memory);
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
      const { memory } = this.#buffers[index];
      if (memory === null || memory.stays || this.#options.blocks.bufferRefs(index) > 0) continue;
      if (held?.includes(index + 1)) continue;
      this.#drop(index);
    }
  }

  [Symbol.dispose](): void {
    for (let index = 0; index < this.count; index++) this.#drop(index);
    this.#buffers.length = 0;
    this.#arena.free(this.table, TABLE_BYTES);
  }

  /** Maps the next buffer, or makes it. Returns false where the server was asked about it. */
  #add(slotBytes: number, announced: boolean): boolean {
    const index = this.count, { blocks, resolvedName } = this.#options;
    if (index >= Limit.buffers) {
      throw new Error(
        `Cannot grow channel ${resolvedName} to slots of ${slotBytes} bytes: it has grown ${index} times already`,
      );
    }
    const source = this.#source;
    const memory = (announced ? null : source.create(index, slotBytes)) ?? source.open(index, true);
    if (memory === null && source.asking) return false;
    if (memory === null) {
      const name = source.nameOf(index);
      throw new Error(
        announced
          ? `Cannot use message buffer ${name}: it is announced, and does not exist or has no length`
          : `Cannot use message buffer ${name}: it has no length, so the publisher that made it has died; ` +
            `remove /dev/shm/${name}`,
      );
    }
    this.#push(memory);
    blocks.setBufferBytes(index, bufferBytes(blocks.numSlots, memory.slotBytes, this.#prefixBytes));
    return true;
  }

  #push(memory: BufferMemory | null): void {
    const index = this.count;
    if (index > 0 && this.#buffers[index - 1].memory !== null) this.#numOlder++;
    this.#buffers.push({ memory: null, slotBytes: 0, payloads: [], prefixes: [], parts: [] });
    this.#newestSlotBytes = 0;
    if (memory !== null) this.#use(index, memory);
  }

  #use(index: number, memory: BufferMemory): void {
    const buffer = this.#buffers[index];
    buffer.memory = memory;
    buffer.slotBytes = memory.slotBytes;
    this.#arena.u32[(this.table >>> 2) + index] = buffer.slotBytes;
    if (index < this.count - 1) this.#numOlder++;
    else this.#newestSlotBytes = buffer.slotBytes;
  }

  #drop(index: number): void {
    const buffer = this.#buffers[index];
    if (buffer.memory === null) return;
    buffer.memory.unmap();
    buffer.memory = null;
    buffer.payloads = [];
    buffer.prefixes = [];
    buffer.parts = [];
    this.#arena.u32[(this.table >>> 2) + index] = 0;
    if (index < this.count - 1) this.#numOlder--;
  }

  #makePayload(buffer: Buffer, slotId: number): Uint8Array<ArrayBuffer> {
    return mapped(buffer).payload(slotId);
  }

  #makePrefix(buffer: Buffer, slotId: number): Uint32Array<ArrayBuffer> {
    const { memory, start } = mapped(buffer).prefix(slotId);
    return new Uint32Array(memory, start, Prefix.fixedBytes / 4);
  }

  #makeParts(buffer: Buffer, slotId: number): PrefixParts {
    const { checksumBytes, metadataBytes } = this.#options;
    const { memory, start } = mapped(buffer).prefix(slotId);
    return {
      head: new Uint8Array(memory, start + Prefix.slot, Prefix.fixedBytes - Prefix.slot),
      checksum: new Uint8Array(memory, start + Prefix.checksum, checksumBytes),
      metadata: new Uint8Array(memory, start + Prefix.checksum + checksumBytes, metadataBytes),
    };
  }
}

function mapped(buffer: Buffer | undefined): BufferMemory {
  const memory = buffer?.memory ?? null;
  if (memory === null) throw new Error("Cannot look into a message buffer: it is not mapped");
  return memory;
}
