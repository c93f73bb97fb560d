/**
 * The arena: the one WebAssembly memory of the process, into which control blocks are mapped, so that the
 * lock-free core works on shared memory with real atomics.
 *
 * An address is an offset in it. The low part holds private structs, where their addresses are small integers; the
 * rest is given out in pages. An access outside the arena is an exception, never a crash; an access to a range
 * that was given back finds private zeroes.
 */

import type { Fd } from "../ffi/fd.ts";
import { mapFixed, type MapOptions, type Mapping, PAGE_BYTES, unmapFixed } from "../ffi/mapping.ts";
import type { CoreExports } from "./core_exports.ts";
import { coreWasm } from "./core_wasm.ts";
import { Ranges } from "./ranges.ts";

const WASM_PAGE_BYTES = 64 * 1024;
const ARENA_BYTES = 4 * 1024 * 1024 * 1024;
const STRUCTS_START = WASM_PAGE_BYTES; // below is the core's own
const STRUCTS_END = 256 * 1024 * 1024;
/** Allocations from this size on are pages, which the kernel takes back. */
const PAGES_FROM_BYTES = 256 * 1024;

/** The arena of the process. */
export class Arena {
  /** To be imported by whatever works on it. */
  readonly memory: WebAssembly.Memory;
  readonly #base: bigint;
  readonly #structs = new Ranges(STRUCTS_START, STRUCTS_END, 64);
  readonly #pages = new Ranges(STRUCTS_END, ARENA_BYTES, PAGE_BYTES);
  /** The lock-free core. */
  readonly core: CoreExports;
  readonly buffer: ArrayBuffer;
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly u16: Uint16Array<ArrayBuffer>;
  readonly i32: Int32Array<ArrayBuffer>;
  readonly u32: Uint32Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;

  constructor() {
    const pages = ARENA_BYTES / WASM_PAGE_BYTES;
    try {
      this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    } catch (cause) {
      throw new Error(
        "Cannot reserve 4 GiB of address space for control blocks: raise the limit (ulimit -v) of this process",
        { cause },
      );
    }
    this.buffer = this.memory.buffer as ArrayBuffer;
    this.u8 = new Uint8Array(this.buffer);
    this.u16 = new Uint16Array(this.buffer);
    this.i32 = new Int32Array(this.buffer);
    this.u32 = new Uint32Array(this.buffer);
    this.view = new DataView(this.buffer);
    this.#base = Deno.UnsafePointer.value(Deno.UnsafePointer.of(this.u8));
    const instance = new WebAssembly.Instance(new WebAssembly.Module(coreWasm), {
      env: { memory: this.memory },
    });
    this.core = instance.exports as unknown as CoreExports;
  }

  /**
   * Maps the first `byteLength` bytes of a file.
   *
   * @throws {RangeError} If the file is shorter, or the arena has no room left.
   * @throws {SystemError} If the kernel refuses.
   */
  map(fd: Fd, byteLength: number, options: MapOptions = {}): ArenaMapping {
    const address = this.#takePages(byteLength);
    try {
      mapFixed(this.#base + BigInt(address), fd, byteLength, options);
    } catch (error) {
      this.#pages.give(address, byteLength);
      throw error;
    }
    return new ArenaMapping(address, byteLength, () => this.#givePages(address, byteLength));
  }

  /**
   * Maps what is mapped elsewhere here as well, so that WebAssembly can get at it.
   *
   * @throws {RangeError} If the arena has no room left.
   * @throws {SystemError} If the kernel refuses.
   */
  mapAgain(mapping: Mapping): ArenaMapping {
    const { byteLength } = mapping, address = this.#takePages(byteLength);
    try {
      mapping.mapAgain(this.#base + BigInt(address));
    } catch (error) {
      this.#pages.give(address, byteLength);
      throw error;
    }
    return new ArenaMapping(address, byteLength, () => this.#givePages(address, byteLength));
  }

  /** Private memory, zeroed, to be given back with `free`. */
  allocate(byteLength: number): number {
    if (byteLength >= PAGES_FROM_BYTES) return this.#takePages(byteLength);
    const address = this.#structs.take(byteLength);
    if (address === null) {
      throw new RangeError(`Cannot allocate ${byteLength} bytes: the arena has no room left`);
    }
    return address;
  }

  /** Gives back memory as it was allocated. */
  free(address: number, byteLength: number): void {
    if (byteLength >= PAGES_FROM_BYTES) return this.#givePages(address, byteLength);
    this.u8.fill(0, address, address + this.#structs.round(byteLength));
    this.#structs.give(address, byteLength);
  }

  /** The address of a byte for system calls. */
  pointer(address: number): Deno.PointerObject {
    return Deno.UnsafePointer.create(this.#base + BigInt(address))!;
  }

  /** A u64, exact below 2^53. */
  u64(address: number): number {
    return this.u32[address >>> 2] + this.u32[(address + 4) >>> 2] * 0x1_0000_0000;
  }

  #takePages(byteLength: number): number {
    const address = this.#pages.take(byteLength);
    if (address === null) {
      throw new RangeError(
        `Cannot map ${byteLength} bytes: the control blocks of this process fill their 4 GiB of address space`,
      );
    }
    return address;
  }

  #givePages(address: number, byteLength: number): void {
    unmapFixed(this.#base + BigInt(address), this.#pages.round(byteLength));
    this.#pages.give(address, byteLength);
  }
}

/** A file mapped into the arena. */
export class ArenaMapping implements Disposable {
  #unmap: (() => void) | null;

  constructor(readonly address: number, readonly byteLength: number, unmap: () => void) {
    this.#unmap = unmap;
  }

  unmap(): void {
    const unmap = this.#unmap;
    this.#unmap = null;
    unmap?.();
  }

  [Symbol.dispose](): void {
    this.unmap();
  }
}

let shared: Arena | undefined;

/** Takes another arena for this process, before anything is mapped: for simulations, whose memory is no file. */
export function useArena(arena: Arena): void {
  shared = arena;
}

/**
 * The WebAssembly memory that messages are in, at `Message.address`: for modules of your own, which import it and work
 * on messages where they are. Declare it as `(memory 1 65536)`.
 *
 * It is the memory of this library's own core too, so a module must write only where it was given an address, and have
 * no data of its own.
 */
export function sharedMemory(): WebAssembly.Memory {
  return arena().memory;
}

/** The arena of this process (of this thread, where there are workers), made on first use. */
export function arena(): Arena {
  return shared ??= new Arena();
}
