/** What a publisher hears of slots that everybody has read. */

import type { Fd } from "../ffi/fd.ts";
import { readInt32 } from "../ffi/pipe.ts";
import { reactor, Ready, type Watch } from "../ffi/reactor.ts";

/**
 * The slots of a channel whose messages every subscriber has released, as they happen: for those who want them back.
 *
 * Whoever retires a slot waits for nobody: if nobody reads, notifications of C++ peers are lost or late once 16 are
 * pending. Iterating never ends before the publisher is closed.
 */
export class Retirements implements AsyncIterable<number> {
  #fd: Fd | null = null;
  #watch: Watch | null = null;
  #arrived = Promise.withResolvers<void>();
  #closed = false;

  /** To be waited for by the caller's own means; -1 while there is none. */
  get pollFd(): number {
    return this.#fd?.number ?? -1;
  }

  /** Takes the next one, if there is one. */
  read(): number | null {
    return this.#fd === null ? null : readInt32(this.#fd.number);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<number, void, undefined> {
    while (!this.#closed) {
      const slotId = this.read();
      if (slotId !== null) yield slotId;
      else await this.#arrival();
    }
  }

  #arrival(): Promise<void> {
    if (this.#watch === null && this.#fd !== null) {
      this.#watch = reactor().watch(this.#fd, Ready.readable | Ready.once, () => this.#wake());
    }
    return this.#arrived.promise;
  }

  #wake(): void {
    this.#watch?.close();
    this.#watch = null;
    this.#arrived.resolve();
    this.#arrived = Promise.withResolvers();
  }

  /** For the publisher: the read end of its pipe, owned from now on; null where there is none. */
  replace(fd: Fd | null): void {
    this.#wake();
    this.#fd?.close();
    this.#fd = fd;
    fd?.setNonBlocking(true);
  }

  /** For the publisher: there will be no more. */
  close(): void {
    this.#closed = true;
    this.replace(null);
  }
}
