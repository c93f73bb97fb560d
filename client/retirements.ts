/** What a publisher hears of slots that everybody has read. */

import type { Fd } from "../ffi/fd.ts";
import { readInt32 } from "../ffi/pipe.ts";
import { reactor, Ready, type Watch } from "../ffi/reactor.ts";

/** Notifications kept that the user has not asked for; older ones are forgotten. */
const KEPT_MAX = 4096;

/**
 * The slots of a channel whose messages every subscriber has released, as they happen: for those who want them back.
 *
 * They are taken out of their pipe whenever the event loop runs, as C++ subscribers stop when 16 are pending there: a
 * program that never lets it run must call `read`. Iterating never ends before the publisher is closed.
 */
export class Retirements implements AsyncIterable<number> {
  #fd: Fd | null = null;
  #watch: Watch | null = null;
  readonly #kept: number[] = [];
  #arrived = Promise.withResolvers<void>();
  #closed = false;

  /** Takes the next one, if there is one. */
  read(): number | null {
    return this.#kept.shift() ?? (this.#fd === null ? null : readInt32(this.#fd.number));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<number, void, undefined> {
    while (!this.#closed) {
      const slotId = this.read();
      if (slotId !== null) yield slotId;
      else await this.#arrived.promise;
    }
  }

  #take(fd: Fd, ready: number): void {
    for (let slotId = readInt32(fd.number); slotId !== null; slotId = readInt32(fd.number)) {
      if (this.#kept.push(slotId) > KEPT_MAX) this.#kept.shift();
    }
    if ((ready & Ready.hangup) !== 0) this.#watch?.close(); // Nobody can write any more.
    this.#wake();
  }

  #wake(): void {
    this.#arrived.resolve();
    this.#arrived = Promise.withResolvers();
  }

  /** For the publisher: the read end of its pipe, owned from now on; null where there is none. */
  replace(fd: Fd | null): void {
    this.#watch?.close();
    this.#fd?.close();
    this.#fd = fd;
    fd?.setNonBlocking(true);
    this.#watch = fd === null ? null : reactor().watch(fd, Ready.readable, (ready) => this.#take(fd, ready));
    this.#wake();
  }

  /** For the publisher: there will be no more. */
  close(): void {
    this.#closed = true;
    this.replace(null);
  }
}
