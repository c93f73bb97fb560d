/** Accepting connections on a listening socket, and resting where that fails. */

import type { Fd } from "../ffi/fd.ts";
import { Ready, type Watch } from "../ffi/reactor.ts";
import type { System } from "../ffi/system.ts";

/** How long accepting rests when it failed, as for want of fds: the listener stays readable, and others close some. */
const REST_MS = 100;
/** What the listening socket is watched for while nobody is accepted. */
const NOTHING = 0;

/** Who is told. */
export interface Reception {
  /** Takes a connection, which is its own from now on. */
  accepted(socket: Fd): void;
  failed(error: Error): void;
}

/** A listening socket. Nobody is accepted until `resume`. */
export class Acceptor {
  readonly #watch: Watch;
  #cancelRest: () => void = () => {};

  /**
   * @param listener Owned by the acceptor from now on.
   * @throws {SystemError} If it cannot be watched. It is closed then.
   */
  constructor(readonly listener: Fd, private readonly system: System, private readonly reception: Reception) {
    try {
      this.#watch = system.watch(listener, NOTHING, () => this.#accept());
    } catch (error) {
      listener.close();
      throw error;
    }
  }

  #accept(): void {
    try {
      const next = () => this.system.accept(this.listener);
      for (let socket = next(); socket !== null; socket = next()) this.reception.accepted(socket);
    } catch (error) {
      this.reception.failed(error as Error);
      this.#watch.rearm(NOTHING);
      this.#cancelRest = this.system.after(REST_MS, () => this.resume());
    }
  }

  /** Accepts nobody until `resume`. */
  suspend(): void {
    this.#watch.rearm(NOTHING);
    this.#cancelRest();
  }

  resume(): void {
    this.#watch.rearm(Ready.readable);
  }

  close(): void {
    this.#watch.close();
    this.#cancelRest();
    this.listener.close();
  }
}
