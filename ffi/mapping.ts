/** Shared memory mapped into this process. */

import { SystemError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { errno, libc, rareLibc } from "./libc.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** Bytes in a page of memory. */
export const PAGE_BYTES = 4096;

/** How memory is mapped. */
export interface MapOptions {
  /** Whether it may be written. Default: true. */
  writable?: boolean;
  /** Where in the file the mapping begins: a multiple of the page size. Default: 0. */
  offset?: number;
}

/**
 * A file mapped as shared memory.
 *
 * Invariant: `buffer` is detached before the memory is unmapped, so a view that outlives the mapping is empty
 * instead of a crash.
 */
export class Mapping implements Disposable {
  #pointer: Deno.PointerObject | null;
  readonly buffer: ArrayBuffer;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;

  private constructor(pointer: Deno.PointerObject, readonly byteLength: number) {
    this.#pointer = pointer;
    this.buffer = Deno.UnsafePointerView.getArrayBuffer(pointer, byteLength);
    this.bytes = new Uint8Array(this.buffer);
    this.view = new DataView(this.buffer);
  }

  /**
   * Maps `byteLength` bytes of a file.
   *
   * @throws {RangeError} If the file is shorter: touching the rest would kill the process.
   * @throws {SystemError} If the kernel refuses.
   */
  static map(fd: Fd, byteLength: number, options: MapOptions = {}): Mapping {
    const { offset = 0 } = options;
    checkLength(fd, byteLength, offset);
    const pointer = libc.mmap(
      null,
      BigInt(byteLength),
      protection(options),
      MAP_SHARED,
      fd.number,
      BigInt(offset),
    );
    if (pointer === null || Deno.UnsafePointer.value(pointer) === MAP_FAILED) {
      throw new SystemError(`map ${byteLength} bytes of ${fd.kind}`, errno());
    }
    return new Mapping(pointer, byteLength);
  }

  /** The address of a byte, for calls that take a pointer. */
  pointer(offset = 0): Deno.PointerObject {
    if (this.#pointer === null) throw new Error("Cannot take an address: the memory is unmapped");
    return Deno.UnsafePointer.offset(this.#pointer, offset)!;
  }

  /**
   * Maps the same memory once more, as readable and writable as it is here, over memory that the caller owns.
   *
   * @param address Where, page-aligned. What is there is to be taken back with `unmapFixed`.
   * @throws {SystemError} If the kernel refuses.
   */
  mapAgain(address: bigint): void {
    // Moving none of a shared mapping's pages leaves it where it is, and makes another one (mremap(2)).
    const from = Deno.UnsafePointer.value(this.pointer()), flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    if (rareLibc().mremap(from, 0n, BigInt(this.byteLength), flags, address) === MAP_FAILED) {
      throw new SystemError(`map ${this.byteLength} bytes of shared memory again`, errno());
    }
  }

  unmap(): void {
    if (this.#pointer === null) return;
    detach(this.buffer);
    libc.munmap(this.#pointer, BigInt(this.byteLength));
    this.#pointer = null;
  }

  [Symbol.dispose](): void {
    this.unmap();
  }
}

/**
 * Maps a file over memory that the caller owns, such as a part of a WebAssembly memory.
 *
 * @param address Where, page-aligned.
 * @throws {RangeError} If the file is shorter than `byteLength`.
 * @throws {SystemError} If the kernel refuses.
 */
export function mapFixed(address: bigint, fd: Fd, byteLength: number, options: MapOptions = {}): void {
  checkLength(fd, byteLength);
  const flags = MAP_SHARED | MAP_FIXED;
  if (libc.mmap_at(address, BigInt(byteLength), protection(options), flags, fd.number, 0n) === MAP_FAILED) {
    throw new SystemError(`map ${byteLength} bytes of ${fd.kind}`, errno());
  }
}

/** Takes back what `mapFixed` did: the range is private zero memory again, and never a hole. */
export function unmapFixed(address: bigint, byteLength: number): void {
  const flags = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS;
  if (libc.mmap_at(address, BigInt(byteLength), PROT_READ | PROT_WRITE, flags, -1, 0n) === MAP_FAILED) {
    throw new SystemError(`unmap ${byteLength} bytes`, errno());
  }
}

function protection({ writable = true }: MapOptions): number {
  return writable ? PROT_READ | PROT_WRITE : PROT_READ;
}

/** Memory at an address that somebody else vouches for, such as a user's allocator; not unmapped, but taken back by `detach`. */
export function memoryAt(pointer: Deno.PointerObject, byteLength: number): ArrayBuffer {
  return Deno.UnsafePointerView.getArrayBuffer(pointer, byteLength);
}

/** Empties a buffer over memory that is about to go, and all views of it. */
export function detach(buffer: ArrayBuffer): void {
  buffer.transfer(0);
}

function checkLength(fd: Fd, byteLength: number, offset = 0): void {
  if (!Number.isSafeInteger(byteLength) || byteLength <= 0) {
    throw new RangeError(`Cannot map ${byteLength} bytes of ${fd.kind}: not a length`);
  }
  if (!Number.isSafeInteger(offset) || offset < 0 || offset % PAGE_BYTES !== 0) {
    throw new RangeError(`Cannot map ${fd.kind} from byte ${offset} on: not a multiple of ${PAGE_BYTES}`);
  }
  const { bytes } = fd.stat();
  if (bytes < offset + byteLength) {
    throw new RangeError(
      offset === 0
        ? `Cannot map ${byteLength} bytes of ${fd.kind}: the file has ${bytes}`
        : `Cannot map ${byteLength} bytes of ${fd.kind} from byte ${offset} on: the file has ${bytes}`,
    );
  }
}
