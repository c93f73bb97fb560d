/** Waiting for an eventfd again and again, in the quickest way that there is. */

import type { Fd } from "./fd.ts";
import { LoopWatch } from "./loop_watch.ts";
import { reactor, Ready, type Watch } from "./reactor.ts";

/** Pulls after which it is worth loading what `LoopWatch` needs: 20 ms and 10 MiB, once in a process. */
const PULLS_BEFORE_LOOP = 16;

/** Each pull once, whether the eventfd has been emptied since or not. */
const PULLS = Ready.readable | Ready.edge;

/**
 * Calls back whenever an eventfd was pulled: at least once after every pull, and now and then without one,
 * without a system call in between.
 */
export class EventFdWatch implements Disposable {
  readonly #fd: Fd;
  readonly #mayEmpty: boolean;
  readonly #callback: () => void;
  #reactorWatch: Watch | null = null;
  #loopWatch: LoopWatch | null = null;
  #pullsBeforeLoop = PULLS_BEFORE_LOOP;
  #paused = false;

  /**
   * @param fd Open until the watch is closed.
   * @param mayEmpty Whether the eventfd may be emptied, as nobody else goes by it.
   * @throws {SystemError} If the fd cannot be watched.
   */
  constructor(fd: Fd, mayEmpty: boolean, callback: () => void) {
    this.#fd = fd;
    this.#mayEmpty = mayEmpty;
    this.#callback = callback;
    this.#watchByReactor();
  }

  #watchByReactor(): void {
    this.#reactorWatch = reactor().watch(this.#fd, this.#paused ? 0 : PULLS, () => {
      if (this.#mayEmpty && --this.#pullsBeforeLoop <= 0) this.#moveToLoop();
      this.#callback();
    });
  }

  /** Pulls meanwhile stay in the eventfd, and are reported then. */
  #moveToLoop(): void {
    this.#pullsBeforeLoop = PULLS_BEFORE_LOOP;
    this.#loopWatch = LoopWatch.start(this.#fd, this.#callback, () => {
      this.#loopWatch = null;
      this.#watchByReactor();
    });
    if (this.#loopWatch === null) return;
    this.#reactorWatch!.close();
    this.#reactorWatch = null;
  }

  /** Calls back no more until `resume`. */
  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#reactorWatch?.rearm(0);
    this.#loopWatch?.pause();
  }

  /** Goes on; calls back at once where it was pulled meanwhile. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#reactorWatch?.rearm(PULLS);
    this.#loopWatch?.resume();
  }

  close(): void {
    this.#reactorWatch?.close();
    this.#loopWatch?.close();
    this.#reactorWatch = this.#loopWatch = null;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
