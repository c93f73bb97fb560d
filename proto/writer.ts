/** Writes the primitives of the Protocol Buffers encoding. */

const FIRST_BYTES = 4096;
const VARINT_BYTES_MAX = 10;

/** A buffer that grows and is used again for the next message. */
export class Writer {
  #bytes = new Uint8Array(FIRST_BYTES);
  #length = 0;
  readonly #encoder = new TextEncoder();

  begin(): void {
    this.#length = 0;
  }

  /** A copy of what was written. */
  end(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.#length);
  }

  tag(no: number, wireType: number): void {
    this.uint32((no << 3 | wireType) >>> 0);
  }

  uint32(value: number): void {
    if (value >>> 0 !== value) throw new RangeError(`Cannot encode ${value} as a uint32`);
    this.#reserve(VARINT_BYTES_MAX);
    this.#varint(value);
  }

  int32(value: number): void {
    if ((value | 0) !== value) throw new RangeError(`Cannot encode ${value} as an int32`);
    if (value < 0) return this.int64(BigInt(value));
    this.#reserve(VARINT_BYTES_MAX);
    this.#varint(value);
  }

  int64(value: bigint): void {
    if (BigInt.asUintN(64, value) !== value && BigInt.asIntN(64, value) !== value) {
      throw new RangeError(`Cannot encode ${value} as an int64 or uint64`);
    }
    this.#reserve(VARINT_BYTES_MAX);
    let rest = BigInt.asUintN(64, value);
    for (; rest > 0xffff_ffffn; rest >>= 7n) {
      this.#bytes[this.#length++] = Number(BigInt.asUintN(7, rest)) | 0x80;
    }
    this.#varint(Number(rest));
  }

  #varint(value: number): void {
    let rest = value;
    for (; rest > 0x7f; rest >>>= 7) this.#bytes[this.#length++] = rest & 0x7f | 0x80;
    this.#bytes[this.#length++] = rest;
  }

  raw(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  bytes(bytes: Uint8Array): void {
    this.uint32(bytes.length);
    this.raw(bytes);
  }

  string(text: string): void {
    const start = this.beginLength();
    this.#reserve(3 * text.length);
    const bytes = this.#bytes;
    let at = this.#length;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code > 0x7f) {
        at = this.#length + this.#encoder.encodeInto(text, bytes.subarray(this.#length)).written;
        break;
      }
      bytes[at++] = code;
    }
    this.#length = at;
    this.endLength(start);
  }

  /** Leaves room for the length of what comes. */
  beginLength(): number {
    this.#reserve(1);
    return this.#length++;
  }

  /** Puts the length of what came since `beginLength` in front of it. Most are short: one byte is enough. */
  endLength(start: number): void {
    const length = this.#length - start - 1;
    if (length > 0x7f) {
      const more = Math.ceil((32 - Math.clz32(length)) / 7) - 1;
      this.#reserve(more);
      this.#bytes.copyWithin(start + 1 + more, start + 1, this.#length);
    }
    this.#length = start;
    this.#varint(length);
    this.#length += length;
  }

  #reserve(count: number): void {
    const needed = this.#length + count;
    if (needed <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }
}
