/** Being a service: ready, alive, stopping, as systemd and its like want to be told (`Type=notify`). */

import { ServiceManager } from "../ffi/service_manager.ts";

/** A program that tells its service manager, if it has one. */
export class Service implements Disposable {
  readonly #manager = ServiceManager.find();
  #watchdog: ReturnType<typeof setInterval> | undefined;

  /**
   * Says that it is ready. From then on it says that it is alive, as often as the manager wants to hear it: from the
   * event loop, so that a program that hangs is silent.
   */
  ready(status: string): void {
    this.#manager.tell("READY=1", `STATUS=${status}`);
    const periodMs = this.#manager.watchdogPeriodMs;
    if (periodMs !== null) this.#watchdog = setInterval(() => this.#manager.tell("WATCHDOG=1"), periodMs);
  }

  stopping(): void {
    this.#manager.tell("STOPPING=1");
  }

  [Symbol.dispose](): void {
    clearInterval(this.#watchdog);
    this.#manager[Symbol.dispose]();
  }
}
