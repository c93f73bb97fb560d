/** The memory of split buffers' payloads, where a user's allocator makes it (specification, section 2.8). */

import { Fd } from "../ffi/fd.ts";
import { detach, Mapping, memoryAt } from "../ffi/mapping.ts";

/** A slot of a split buffer, for which memory is asked. */
export interface SplitSlot {
  /** The channel's name; the multiplexer's for a virtual channel. */
  readonly channel: string;
  /** Which of the channel's buffers: each time that slots grow there is another. */
  readonly bufferIndex: number;
  readonly slotId: number;
  /** Bytes needed: a multiple of the page size. */
  readonly bytes: number;
  /** To `map`: what the allocator that made the memory calls it. 0 to `allocate`. */
  readonly handle: bigint;
  /** To `map`: the memory's fd, open until `map` returns. null where its publisher gave none, and to `allocate`. */
  readonly fd: number | null;
  /** To `map`: where in the fd the slot begins. 0 to `allocate`. */
  readonly mapOffset: number;
}

/** Memory of a slot: at an address, or in a file that is to be mapped. */
export interface SplitMemory {
  /** Where it is in this process; valid until it is given back with `unmap` or `free`. Default: `fd` is mapped. */
  readonly pointer?: Deno.PointerObject;
  /** A file, such as a memfd or a DMA buffer, by which others map it. Stays the allocator's, and open until `free`. */
  readonly fd?: number;
  /** Where in the file it begins: a multiple of the page size. Default: 0. */
  readonly mapOffset?: number;
  /** What others are told of it: a number with a meaning to their `map`. Default: 0. */
  readonly handle?: bigint;
}

/** Finds memory that somebody else's allocator has made. */
export interface SplitBufferMapper {
  /** Called once a slot; what it throws makes the buffer unusable. */
  map(slot: SplitSlot): SplitMemory;
  /** Called when it is used no more. Must not throw. Default: nothing needs to be done. */
  unmap?(slot: SplitSlot, memory: SplitMemory): void;
}

/**
 * Makes the memory of messages: pinned, on a device, of huge pages, or whatever hardware wants.
 *
 * Whoever makes a buffer has `allocate` called for each of its slots; whoever finds one made has `map` called, which
 * may be left out where `allocate` gives fds.
 */
export interface SplitBufferAllocator extends Partial<SplitBufferMapper> {
  /** What it throws, `createPublisher` or `getBuffer` throws. */
  allocate(slot: SplitSlot): SplitMemory;
  /** Called when the publisher that made it is closed. Must not throw. Default: `unmap`. */
  free?(slot: SplitSlot, memory: SplitMemory): void;
}

/** A slot as it was registered with the server. */
export interface RegisteredSlot {
  readonly handle: bigint;
  /** null: there is none. */
  readonly fd: Fd | null;
  readonly mapOffset: number;
  /** Whether an allocator made it. */
  readonly allocated: boolean;
}

/** A slot's payload memory in this process. */
export interface SlotMemory {
  readonly memory: ArrayBuffer;
  readonly handle: bigint | null;
  release(): void;
}

/** Takes over memory that an allocator or a mapper has returned. */
export function takeMemory(
  slot: SplitSlot,
  given: SplitMemory,
  writable: boolean,
  giveBack: ((slot: SplitSlot, memory: SplitMemory) => void) | undefined,
): SlotMemory {
  const returned = () => quietly(() => giveBack?.(slot, given));
  const handle = given.handle ?? slot.handle;
  try {
    if (given.pointer !== undefined) {
      const memory = memoryAt(given.pointer, slot.bytes);
      return { memory, handle, release: () => (detach(memory), returned()) };
    }
    if (given.fd === undefined) {
      throw new TypeError(
        `Cannot use the memory of slot ${slot.slotId} of channel ${slot.channel}: the allocator gave neither ` +
          "`pointer` nor `fd`",
      );
    }
    using fd = Fd.adopt(given.fd, "allocated memory").duplicate();
    const mapping = Mapping.map(fd, slot.bytes, { writable, offset: given.mapOffset ?? 0 });
    return { memory: mapping.buffer, handle, release: () => (mapping.unmap(), returned()) };
  } catch (error) {
    returned();
    throw error;
  }
}

/** Memory goes, whatever the user's function thinks of it. */
function quietly(run: () => void): void {
  try {
    run();
  } catch (error) {
    reportError(error);
  }
}
