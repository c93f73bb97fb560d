/** Hands out ranges of an address space. */

interface Range {
  start: number;
  bytes: number;
}

/**
 * First-fit allocator of ranges.
 *
 * Invariant: the free ranges are sorted, don't touch each other, and are multiples of `unit`.
 */
export class Ranges {
  readonly #free: Range[];

  constructor(start: number, end: number, readonly unit: number) {
    this.#free = [{ start, bytes: end - start }];
  }

  /** A range, rounded up to the unit; null where none is left that is big enough. */
  take(bytes: number): number | null {
    const rounded = this.round(bytes);
    const index = this.#free.findIndex((range) => range.bytes >= rounded);
    if (index < 0) return null;
    const range = this.#free[index];
    const start = range.start;
    range.start += rounded;
    range.bytes -= rounded;
    if (range.bytes === 0) this.#free.splice(index, 1);
    return start;
  }

  /** Takes a range back, as given out. */
  give(start: number, bytes: number): void {
    const rounded = this.round(bytes);
    let index = this.#free.findIndex((range) => range.start > start);
    if (index < 0) index = this.#free.length;
    this.#free.splice(index, 0, { start, bytes: rounded });
    this.#join(index);
    if (index > 0) this.#join(index - 1);
  }

  /** The size that a range of a size really has. */
  round(bytes: number): number {
    return Math.ceil(bytes / this.unit) * this.unit;
  }

  #join(index: number): void {
    const range = this.#free[index], next = this.#free[index + 1];
    if (next === undefined || range.start + range.bytes !== next.start) return;
    range.bytes += next.bytes;
    this.#free.splice(index + 1, 1);
  }
}
