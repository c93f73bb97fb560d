/** A subscriber's messages as an asynchronous iterator. */

import type { Message } from "./message.ts";
import type { WaitOptions } from "./waiter.ts";

/** What is read from: a subscriber. */
export interface MessageSource<Value> {
  read(): Message<Value> | null;
  wait(options: WaitOptions): Promise<boolean>;
  /** Gives the event loop a turn. */
  breathe(): Promise<void>;
  readonly closed: boolean;
}

type Result<Value> = IteratorResult<Message<Value>, undefined>;

/** Messages of a loop before the event loop gets its turn. */
const BREATH_EVERY = 256;

/**
 * Lends messages one at a time: each is released when the next one is asked for, or the loop is left.
 *
 * For a message that is there already nothing is made: as only one is lent at a time, the promise and its result are
 * the same for all.
 */
export class Messages<Value> implements AsyncIterableIterator<Message<Value>, undefined, undefined> {
  readonly #source: MessageSource<Value>;
  readonly #options: WaitOptions;
  readonly #result = { done: false as const, value: null as Message<Value> | null };
  readonly #lent = Promise.resolve(this.#result as IteratorYieldResult<Message<Value>>);
  /** Settled when all have got what they wait for; null while nobody waits. */
  #turns: Promise<void> | null = null;
  #count = 0;
  #over = false;

  constructor(source: MessageSource<Value>, options: WaitOptions) {
    this.#source = source;
    this.#options = options;
  }

  next(): Promise<Result<Value>> {
    try {
      if (this.#turns === null && ++this.#count % BREATH_EVERY !== 0 && this.#readNext()) return this.#lent;
    } catch (error) {
      return Promise.reject(error);
    }
    const turn = this.#turns === null ? this.#waitForNext() : this.#turns.then(() => this.#waitForNext());
    const settled = () => {
      if (this.#turns === turns) this.#turns = null;
    };
    const turns = this.#turns = turn.then(settled, settled);
    return turn;
  }

  async #waitForNext(): Promise<Result<Value>> {
    this.#release();
    if (this.#count % BREATH_EVERY === 0) await this.#source.breathe();
    while (!this.#readNext()) {
      if (this.#over || this.#source.closed) return { done: true, value: undefined };
      await this.#source.wait(this.#options);
    }
    return this.#lent;
  }

  /** Releases the message lent, and reads the next one. Returns whether there is one. */
  #readNext(): boolean {
    this.#release();
    if (this.#over || this.#source.closed) return false;
    this.#options.signal?.throwIfAborted();
    return (this.#result.value = this.#source.read()) !== null;
  }

  #release(): void {
    this.#result.value?.release();
    this.#result.value = null;
  }

  return(): Promise<IteratorReturnResult<undefined>> {
    this.#over = true;
    this.#release();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}
