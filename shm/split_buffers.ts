/**
 * Split buffers: the prefixes of all slots in one memory object, and each slot's payload in one of its own
 * (specification, sections 2.8, 4.8).
 *
 * All names follow from channel, buffer and slot. What the files in `/tmp` and the server say of a part is never
 * believed beyond what the kernel says of the object itself.
 */

import { Fd } from "../ffi/fd.ts";
import { Mapping, PAGE_BYTES } from "../ffi/mapping.ts";
import {
  fileExists,
  objectExists,
  openNamed,
  setMode,
  setOwner,
  truncate,
  unlinkFile,
  unlinkNamed,
  writeFile,
} from "../ffi/memory_object.ts";
import { pollSync } from "../ffi/poll.ts";
import { type Init, toBinary } from "../proto/message.ts";
import { ClientBufferHandleMetadataProtoSchema } from "../proto/subspace.ts";
import { ClientBufferAllocator } from "../proto/subspace.ts";
import type { ClientBufferHandleMetadataProto } from "../proto/subspace_pb.ts";
import {
  BUFFER_MODE,
  type BufferMemory,
  type BufferOptions,
  type BufferSource,
  LENGTH_TRIES,
  LENGTH_WAIT_MS,
  type PrefixPlace,
} from "./buffer_memory.ts";
import { splitObjectName, type SplitPart, splitPath } from "./buffer_names.ts";
import { ControlBlockError } from "./control_blocks.ts";
import { bufferBytes, Limit, prefixBytes, slotBytesOfBuffer } from "./layout.ts";
import {
  type RegisteredSlot,
  type SlotMemory,
  type SplitBufferAllocator,
  type SplitBufferMapper,
  type SplitMemory,
  type SplitSlot,
  takeMemory,
} from "./split_memory.ts";

/** What the server is told of a part. */
export type PartMetadata = Init<ClientBufferHandleMetadataProto>;

/** The slots of a buffer, by their ids, as the server knows them; whoever gets them disposes of their fds. */
export interface RegisteredSlots extends Disposable {
  readonly slots: ReadonlyMap<number, RegisteredSlot>;
}

/** What the server knows of parts. */
export interface PartRegistry {
  /** Makes a part known. `open` gives its fd, when it is its turn; null where there is none. */
  register(metadata: PartMetadata, open: () => Fd | null): void;
  /** Makes the parts of a buffer forgotten. */
  unregister(bufferIndex: number): void;
  /** Takes what the server has said of a buffer; null: it was asked, to be tried again when it has answered. */
  take(bufferIndex: number): RegisteredSlots | null;
}

/** How the payloads of split buffers are made and found. */
export interface SplitOptions {
  readonly registry: PartRegistry;
  readonly allocator: Partial<SplitBufferAllocator> | SplitBufferMapper | null;
}

const FILE_MODE = 0o666;

export class SplitBuffers implements BufferSource {
  readonly #options: BufferOptions;
  readonly #registry: PartRegistry;
  readonly #allocator: Partial<SplitBufferAllocator>;
  readonly #prefixBytes: number;
  asking = false;

  constructor(options: BufferOptions, { registry, allocator }: SplitOptions) {
    this.#options = options;
    this.#registry = registry;
    this.#allocator = allocator ?? {};
    this.#prefixBytes = prefixBytes(options.checksumBytes, options.metadataBytes);
  }

  nameOf(index: number): string {
    return splitObjectName(this.#path(index, "prefix"));
  }

  /**
   * Makes a buffer; or makes the rest of one whose publisher has died over it.
   *
   * Its prefixes are made first, and exclusively: whoever does makes all the rest, in the order of the slots.
   */
  create(index: number, slotBytes: number): BufferMemory | null {
    const { blocks: { numSlots } } = this.#options;
    const bytes = pageAligned(numSlots * this.#prefixBytes), path = this.#path(index, "prefix");
    using made = this.#makeObject(path, bytes);
    if (made === null && this.#becomesWhole(index)) return null;
    using prefix = made ?? this.#openObject(path, bytes);
    using cleanup = new DisposableStack();
    cleanup.defer(() => this.#remove(path));
    if (made === null) this.#registry.unregister(index); // Of a publisher that has died.
    this.#options.blocks.setBufferBytes(index, bufferBytes(numSlots, slotBytes, this.#prefixBytes));
    const mapping = cleanup.adopt(Mapping.map(prefix, bytes), (mapping) => mapping.unmap());
    this.#describe(index, "prefix", bytes, { fd: prefix.number });
    const slots: SlotMemory[] = [];
    for (let slotId = 0; slotId < numSlots; slotId++) {
      slots.push(this.#makeSlot(index, slotId, pageAligned(slotBytes), cleanup));
    }
    cleanup.move();
    const unregister = this.#allocator.allocate === undefined ? null : () => this.#unregister(index);
    return new SplitBuffer(slotBytes, mapping, this.#prefixBytes, slots, unregister);
  }

  open(index: number, patient: boolean): BufferMemory | null {
    const { blocks, writable } = this.#options, { numSlots } = blocks;
    this.asking = false;
    const prefixSize = numSlots * this.#prefixBytes, path = this.#path(index, "prefix");
    using fd = openNamed(splitObjectName(path), { writable });
    if (fd === null || (patient && !this.#becomesWhole(index))) return null;
    const bytes = fd.stat().bytes;
    if (bytes === 0) return null;
    if (bytes < prefixSize) {
      throw new ControlBlockError(
        `Cannot use ${fd.kind}, the prefixes of message buffer ${index} of channel ${this.#name}: ` +
          `it has ${bytes} bytes, and not ${prefixSize}`,
      );
    }
    using cleanup = new DisposableStack();
    const mapping = cleanup.adopt(Mapping.map(fd, prefixSize, { writable }), (mapping) => mapping.unmap());
    const slots = this.#openSlots(index, cleanup);
    if (slots === null) return null;
    const slotBytes = slots.reduce((least, { memory }) => Math.min(least, memory.byteLength), Infinity);
    cleanup.move();
    return new SplitBuffer(slotBytes & ~63, mapping, this.#prefixBytes, slots, null);
  }

  /** The payloads of a buffer, each of them as long as the buffer says, or as its object is. */
  #openSlots(index: number, cleanup: DisposableStack): SlotMemory[] | null {
    const { blocks } = this.#options;
    const said = slotBytesOfBuffer(blocks.bufferBytes(index), blocks.numSlots, this.#prefixBytes);
    const most = said >= 64 ? Math.min(said, Limit.slotBytes) : Limit.slotBytes;
    // The server is asked only about what has no name, or may be the mapper's.
    const asks = this.#allocator.map !== undefined || !objectExists(this.#objectName(index, 0));
    using registered = asks ? this.#registry.take(index) : null;
    this.asking = asks && registered === null;
    if (this.asking) return null;
    // Before a mapper is called: whoever makes the buffer may have registered only some slots as yet.
    if (registered !== null && !this.#areThere(index, registered)) return this.#askAgain(index);
    const slots: SlotMemory[] = [];
    for (let slotId = 0; slotId < blocks.numSlots; slotId++) {
      const slot = this.#openSlot(index, slotId, most, registered?.slots.get(slotId));
      if (slot === null) return asks ? this.#askAgain(index) : null;
      cleanup.defer(() => slot.release());
      slots.push(slot);
    }
    return slots;
  }

  /** Whether each slot is registered, or has a name. */
  #areThere(index: number, { slots }: RegisteredSlots): boolean {
    for (let slotId = 0; slotId < this.#options.blocks.numSlots; slotId++) {
      if (!slots.has(slotId) && !objectExists(this.#objectName(index, slotId))) return false;
    }
    return true;
  }

  /** Whoever makes the buffer is not done: there may be more in a moment. */
  #askAgain(index: number): null {
    using again = this.#registry.take(index);
    this.asking = again === null;
    return null;
  }

  #openSlot(index: number, slotId: number, most: number, known?: RegisteredSlot): SlotMemory | null {
    const { writable } = this.#options, { map, unmap } = this.#allocator;
    if (known === undefined || !known.allocated) {
      using fd = openNamed(this.#objectName(index, slotId), { writable });
      if (fd !== null) return namedMemory(fd, most, writable);
      if (known === undefined) return null;
    }
    const slot: SplitSlot = {
      channel: this.#name,
      bufferIndex: index,
      slotId,
      bytes: pageAligned(most),
      handle: known.handle,
      fd: known.fd?.number ?? null,
      mapOffset: known.mapOffset,
    };
    if (known.allocated && map !== undefined) {
      return takeMemory(slot, map.call(this.#allocator, slot), writable, unmap?.bind(this.#allocator));
    }
    if (known.fd !== null) {
      const { number } = known.fd, { mapOffset } = known;
      return takeMemory(slot, { fd: number, mapOffset }, writable, undefined);
    }
    throw new Error(
      `Cannot use message buffer ${index} of channel ${this.#name}: an allocator made it and gave no fd; give ` +
        "`splitBuffers` with a `map` that finds its memory",
    );
  }

  #makeSlot(index: number, slotId: number, bytes: number, cleanup: DisposableStack): SlotMemory {
    const path = this.#path(index, { slot: slotId });
    const { allocate, free, unmap } = this.#allocator;
    cleanup.defer(() => this.#remove(path));
    if (allocate === undefined) {
      using fd = this.#makeObject(path, bytes) ?? this.#openObject(path, bytes);
      const slot = cleanup.adopt(namedMemory(fd, bytes, true)!, (slot) => slot.release());
      this.#describe(index, { slot: slotId }, bytes, { fd: fd.number });
      return slot;
    }
    const wanted: SplitSlot = {
      channel: this.#name,
      bufferIndex: index,
      slotId,
      bytes,
      handle: 0n,
      fd: null,
      mapOffset: 0,
    };
    const given = allocate.call(this.#allocator, wanted);
    const giveBack = (free ?? unmap)?.bind(this.#allocator);
    const slot = cleanup.adopt(takeMemory(wanted, given, true, giveBack), (slot) => slot.release());
    this.#describe(index, { slot: slotId }, bytes, given, true);
    return slot;
  }

  /** Writes the file that C++ clients find a part by, and tells the server. */
  #describe(index: number, part: SplitPart, bytes: number, memory: SplitMemory, allocated = false): void {
    const path = this.#path(index, part), objectName = splitObjectName(path);
    const metadata: PartMetadata = {
      channelName: this.#name,
      sessionId: this.#options.sessionId,
      bufferIndex: index,
      slotId: part === "prefix" ? 0 : part.slot,
      isPrefix: part === "prefix",
      fullSize: BigInt(bytes),
      allocationSize: BigInt(bytes),
      // The reference has the number of an fd here where nobody made the memory.
      handle: memory.handle ?? BigInt(memory.fd ?? 0),
      shadowFile: path,
      objectName,
      allocator: ClientBufferAllocator.UNSPECIFIED,
      mapOffset: BigInt(memory.mapOffset ?? 0),
    };
    writeFile(path, toBinary(ClientBufferHandleMetadataProtoSchema, metadata), FILE_MODE);
    const { fd } = memory;
    const open = () =>
      !allocated
        ? openNamed(objectName)
        : fd === undefined
        ? null
        : Fd.adopt(fd, "allocated memory").duplicate();
    const allocator = allocated ? ClientBufferAllocator.SPLIT_CALLBACK : ClientBufferAllocator.SPLIT_SHM;
    this.#registry.register({ ...metadata, allocator }, open);
  }

  /** The memory is the allocator's again: nobody is to be sent there. */
  #unregister(index: number): void {
    const { numSlots } = this.#options.blocks;
    for (let slot = 0; slot < numSlots; slot++) unlinkFile(this.#path(index, { slot }));
    this.#registry.unregister(index);
  }

  /** Waits a moment until the publisher that makes a buffer is done. Returns whether it is. */
  #becomesWhole(index: number): boolean {
    const last = this.#path(index, { slot: this.#options.blocks.numSlots - 1 });
    for (let tries = 1; !fileExists(last) || this.#options.blocks.bufferBytes(index) === 0; tries++) {
      if (tries >= LENGTH_TRIES) return false;
      pollSync([], LENGTH_WAIT_MS);
    }
    return true;
  }

  /** Makes a named object; null where there is one. */
  #makeObject(path: string, bytes: number): Fd | null {
    const { owner } = this.#options, name = splitObjectName(path);
    const fd = openNamed(name, { create: true });
    if (fd === null) return null;
    try {
      truncate(fd, bytes);
      setMode(fd, BUFFER_MODE);
      if (owner !== undefined) setOwner(fd, owner.uid, owner.gid);
      return fd;
    } catch (error) {
      fd.close();
      unlinkNamed(name);
      throw error;
    }
  }

  /** Opens an object that a publisher which has died has left, and makes sure of its length. */
  #openObject(path: string, bytes: number): Fd {
    const name = splitObjectName(path), fd = openNamed(name);
    if (fd === null) throw new Error(`Cannot use message buffer ${name}: it was just removed`);
    try {
      if (fd.stat().bytes < bytes) truncate(fd, bytes);
      return fd;
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  #remove(path: string): void {
    unlinkNamed(splitObjectName(path));
    unlinkFile(path);
  }

  get #name(): string {
    return this.#options.resolvedName;
  }

  #path(index: number, part: SplitPart): string {
    return splitPath(this.#options.sessionId, this.#name, index, part);
  }

  #objectName(index: number, slotId: number): string {
    return splitObjectName(this.#path(index, { slot: slotId }));
  }
}

class SplitBuffer implements BufferMemory {
  constructor(
    readonly slotBytes: number,
    readonly prefixes: Mapping,
    readonly prefixBytes: number,
    readonly slots: readonly SlotMemory[],
    /** Called when memory that this end's allocator made goes. */
    readonly gone: (() => void) | null,
  ) {}

  /** What an allocator made goes when its publisher is closed, and not before. */
  get stays(): boolean {
    return this.gone !== null;
  }

  payload(slotId: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.slots[slotId].memory, 0, this.slotBytes);
  }

  prefix(slotId: number): PrefixPlace {
    return { memory: this.prefixes.buffer, start: this.prefixBytes * slotId };
  }

  handle(slotId: number): bigint | null {
    return this.slots[slotId].handle;
  }

  address(): null {
    return null;
  }

  unmap(): void {
    this.gone?.();
    this.prefixes.unmap();
    for (const slot of this.slots) slot.release();
  }
}

/** Maps a named payload; null where its publisher has not given it a length yet. */
function namedMemory(fd: Fd, most: number, writable: boolean): SlotMemory | null {
  const bytes = Math.min(most, fd.stat().bytes) & ~63;
  if (bytes < 64) return null;
  const mapping = Mapping.map(fd, bytes, { writable });
  return { memory: mapping.buffer, handle: null, release: () => mapping.unmap() };
}

function pageAligned(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
