/** Message buffers of one piece: each slot's prefix, and its payload behind it (specification, section 4.7). */

import type { Fd } from "../ffi/fd.ts";
import { Mapping } from "../ffi/mapping.ts";
import { openNamed, setMode, setOwner, truncate, unlinkNamed } from "../ffi/memory_object.ts";
import { pollSync } from "../ffi/poll.ts";
import { arena, type ArenaMapping } from "./arena.ts";
import {
  BUFFER_MODE,
  type BufferMemory,
  type BufferOptions,
  type BufferSource,
  LENGTH_TRIES,
  LENGTH_WAIT_MS,
} from "./buffer_memory.ts";
import { bufferName } from "./buffer_names.ts";
import { ControlBlockError } from "./control_blocks.ts";
import { bufferBytes, prefixBytes, slotBytesOfBuffer } from "./layout.ts";

/** Named files in `/dev/shm`, one a buffer. */
export class WholeBuffers implements BufferSource {
  readonly #options: BufferOptions;
  readonly #prefixBytes: number;
  readonly asking = false;

  constructor(options: BufferOptions) {
    this.#options = options;
    this.#prefixBytes = prefixBytes(options.checksumBytes, options.metadataBytes);
  }

  nameOf(index: number): string {
    return bufferName(this.#options.sessionId, this.#options.resolvedName, index);
  }

  create(index: number, slotBytes: number): BufferMemory | null {
    const { blocks, owner } = this.#options;
    using fd = openNamed(this.nameOf(index), { create: true });
    if (fd === null) return null;
    try {
      const bytes = bufferBytes(blocks.numSlots, slotBytes, this.#prefixBytes);
      truncate(fd, bytes);
      setMode(fd, BUFFER_MODE);
      if (owner !== undefined) setOwner(fd, owner.uid, owner.gid);
      return new WholeBuffer(Mapping.map(fd, bytes), slotBytes, this.#prefixBytes);
    } catch (error) {
      unlinkNamed(this.nameOf(index));
      throw error;
    }
  }

  open(index: number, patient: boolean): BufferMemory | null {
    const { writable, resolvedName, blocks: { numSlots } } = this.#options;
    using fd = openNamed(this.nameOf(index), { writable });
    if (fd === null) return null;
    const bytes = lengthOf(fd, patient ? LENGTH_TRIES : 1);
    if (bytes === 0) return null;
    const slotBytes = slotBytesOfBuffer(bytes, numSlots, this.#prefixBytes);
    if (slotBytes < 64 || slotBytes % 64 !== 0) {
      throw new ControlBlockError(
        `Cannot use message buffer ${this.nameOf(index)}: its ${bytes} bytes are no ${numSlots} ` +
          `slots of channel ${resolvedName} with prefixes of ${this.#prefixBytes} bytes`,
      );
    }
    return new WholeBuffer(Mapping.map(fd, bytes, { writable }), slotBytes, this.#prefixBytes);
  }
}

class WholeBuffer implements BufferMemory {
  readonly stays = false;
  #again: ArenaMapping | null = null;

  constructor(
    readonly mapping: Mapping,
    readonly slotBytes: number,
    readonly prefixBytes: number,
  ) {}

  payload(slotId: number): Uint8Array<ArrayBuffer> {
    const start = (this.prefixBytes + this.slotBytes) * slotId + this.prefixBytes;
    return new Uint8Array(this.mapping.buffer, start, this.slotBytes);
  }

  prefix(slotId: number) {
    return { memory: this.mapping.buffer, start: (this.prefixBytes + this.slotBytes) * slotId };
  }

  handle(): null {
    return null;
  }

  address(slotId: number): number {
    const { address } = this.#again ??= arena().mapAgain(this.mapping);
    return address + (this.prefixBytes + this.slotBytes) * slotId + this.prefixBytes;
  }

  unmap(): void {
    this.#again?.unmap();
    this.mapping.unmap();
  }
}

/** The length of a file that may just be being made; 0 where it has none after so many looks. */
function lengthOf(fd: Fd, tries: number): number {
  for (let i = 1;; i++) {
    const { bytes } = fd.stat();
    if (bytes > 0 || i >= tries) return bytes;
    pollSync([], LENGTH_WAIT_MS);
  }
}
