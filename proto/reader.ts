/** Reads the primitives of the Protocol Buffers encoding. */

/** How what follows a tag is encoded. */
export const WireType = { varint: 0, fixed64: 1, bytes: 2, startGroup: 3, endGroup: 4, fixed32: 5 } as const;

const GROUPS_MAX = 100;
const SHORT_TEXT = 64;

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function isAscii(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] >= 0x80) return false;
  return true;
}

/** A number from its lower 28 bits, the next 28, and the rest. */
function joined(low: number, middle: number, high: number): bigint {
  // As long as a double has all of it, this takes one bigint instead of five.
  if (high === 0 && middle < 2 ** 25) return BigInt(middle * 2 ** 28 + low);
  return BigInt.asUintN(64, BigInt(high) << 56n | BigInt(middle) << 28n | BigInt(low));
}

/** A position in bytes. What it throws are `RangeError`s, and `TypeError`s for text that is no UTF-8. */
export class Reader {
  position = 0;

  constructor(private readonly source: Uint8Array) {}

  /** A tag: number << 3 | wire type. */
  tag(): number {
    const start = this.position, tag = this.uint32();
    if (this.position - start > 5 || tag >>> 3 === 0 || (tag & 7) > WireType.fixed32) {
      throw new RangeError(`there is no tag ${tag}`);
    }
    return tag;
  }

  /** The lower half of a varint. */
  uint32(): number {
    const { source } = this;
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#byte(source);
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw new RangeError("a number has more than ten bytes");
  }

  uint64(): bigint {
    const { source } = this;
    let low = 0, middle = 0, high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = this.#byte(source), bits = byte & 0x7f;
      if (shift < 28) low |= bits << shift;
      else if (shift < 56) middle |= bits << (shift - 28);
      else high |= bits << (shift - 56);
      if (byte < 0x80) return joined(low, middle, high);
    }
    throw new RangeError("a number has more than ten bytes");
  }

  bool(): boolean {
    return this.uint64() !== 0n;
  }

  #byte(source: Uint8Array): number {
    if (this.position >= source.length) throw new RangeError("the message ends early");
    return source[this.position++];
  }

  /** Reads a length. Returns the position behind what is that long. */
  end(): number {
    const length = this.uint32(), end = this.position + length;
    if (end > this.source.length) throw new RangeError("the message ends early");
    return end;
  }

  bytes(): Uint8Array {
    const end = this.end(), bytes = this.source.slice(this.position, end);
    this.position = end;
    return bytes;
  }

  string(): string {
    const end = this.end(), bytes = this.source.subarray(this.position, end);
    this.position = end;
    if (bytes.length > SHORT_TEXT || !isAscii(bytes)) return decoder.decode(bytes);
    // Spread, they would be copied into an array before.
    return String.fromCharCode.apply(null, bytes as ArrayLike<number> as number[]);
  }

  /** Passes what follows a tag. Returns a copy of it. */
  skip(wireType: number, no: number): Uint8Array {
    const start = this.position;
    this.#pass(wireType, no, GROUPS_MAX);
    return this.source.slice(start, this.position);
  }

  #pass(wireType: number, no: number, groupsMax: number): void {
    switch (wireType) {
      case WireType.varint:
        this.uint32();
        return;
      case WireType.fixed64:
        return this.#advance(8);
      case WireType.fixed32:
        return this.#advance(4);
      case WireType.bytes:
        this.position = this.end();
        return;
      case WireType.startGroup:
        if (groupsMax === 0) throw new RangeError("groups are nested too deep");
        for (let tag = this.tag(); tag !== (no << 3 | WireType.endGroup) >>> 0; tag = this.tag()) {
          this.#pass(tag & 7, tag >>> 3, groupsMax - 1);
        }
        return;
      default:
        throw new RangeError("a group ends that has not begun");
    }
  }

  #advance(count: number): void {
    this.position += count;
    if (this.position > this.source.length) throw new RangeError("the message ends early");
  }
}
