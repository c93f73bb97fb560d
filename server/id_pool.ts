/** Ids from 0 up, the lowest free one first: channels, and the users of a channel. */
export class IdPool {
  readonly #taken = new Set<number>();
  /** All ids below are taken. */
  #lowest = 0;

  constructor(readonly limit: number) {}

  /** How many are taken. */
  get size(): number {
    return this.#taken.size;
  }

  get full(): boolean {
    return this.size === this.limit;
  }

  /** Takes the lowest free id; null where none is left. */
  allocate(): number | null {
    while (this.#lowest < this.limit && this.#taken.has(this.#lowest)) this.#lowest++;
    if (this.#lowest === this.limit) return null;
    this.reserve(this.#lowest);
    return this.#lowest;
  }

  /** Whether an id is in range and free. */
  isFree(id: number): boolean {
    return Number.isInteger(id) && id >= 0 && id < this.limit && !this.#taken.has(id);
  }

  /** Takes a certain id, which must be free. */
  reserve(id: number): void {
    if (!this.isFree(id)) throw new RangeError(`Cannot take id ${id}: it is taken or out of range`);
    this.#taken.add(id);
  }

  /** Gives an id back. Throws if it was free already: whoever frees twice would free what is somebody else's. */
  release(id: number): void {
    if (!this.#taken.delete(id)) throw new RangeError(`Cannot free id ${id}: it is not taken`);
    if (id < this.#lowest) this.#lowest = id;
  }
}
