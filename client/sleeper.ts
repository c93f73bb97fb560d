/** Sleeping without the event loop. */

import { Epoll, Ready } from "../ffi/epoll.ts";
import type { Fd } from "../ffi/fd.ts";
import { pollSync } from "../ffi/poll.ts";

/** What a sleep says: bits, none of them after the trigger or the time. */
export const Woken = { bySocket: 1, byOther: 2 } as const;

/**
 * Puts the thread to sleep until a trigger is pulled, or the server has sent something.
 *
 * It goes by changes: each pull ends one sleep, the next if none is under way, whether the trigger has been emptied
 * since or not. So a wake-up takes one system call, and looking between two sleeps misses nothing.
 */
export class Sleeper implements Disposable {
  readonly #epoll = new Epoll(2);
  #trigger: Fd | null = null;
  #socket: Fd | null = null;

  /**
   * @param timeoutMs How long at most; `Infinity`: for ever.
   * @param other Number of another fd that ends the sleep while it is readable.
   * @returns `Woken` bits: whether the server has sent something or hung up, and whether the other fd is readable.
   */
  sleep(trigger: Fd, socket: Fd | null, timeoutMs: number, other?: number): number {
    // Those that were watched before are closed, and so forgotten.
    if (this.#trigger !== trigger) this.#watch(this.#trigger = trigger, 0);
    if (this.#socket !== socket) {
      this.#socket = socket;
      if (socket !== null) this.#watch(socket, Woken.bySocket);
    }
    const timeout = timeoutMs === Infinity ? -1 : Math.min(Math.ceil(timeoutMs), 0x7fff_ffff);
    if (other === undefined) return this.#wait(timeout);
    const ready = pollSync([this.#epoll.number, other], timeout);
    return this.#wait(0) | (ready.includes(other) ? Woken.byOther : 0);
  }

  #wait(timeoutMs: number): number {
    let woken = 0;
    for (let i = this.#epoll.wait(timeoutMs) - 1; i >= 0; i--) woken |= this.#epoll.token(i);
    return woken;
  }

  #watch(fd: Fd, token: number): void {
    this.#epoll.add(fd.number, Ready.readable | Ready.edge, token);
  }

  [Symbol.dispose](): void {
    this.#epoll[Symbol.dispose]();
  }
}
