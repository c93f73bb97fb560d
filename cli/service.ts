/** Being a service: ready, alive, stopping, as systemd and its like want to be told (`Type=notify`). */

import type { Fd } from "../ffi/fd.ts";
import { ServiceManager } from "../ffi/service_manager.ts";

/** A program that tells its service manager, if it has one. */
export class Service implements Disposable {
  readonly #manager = ServiceManager.find();
  #watchdog: ReturnType<typeof setInterval> | undefined;

  /**
   * Says that it is ready. From then on it says that it is alive, as often as the manager wants to hear it: from the
   * event loop, so that a program that hangs is silent.
   *
   * @param anew Whether the service may have been another process until now.
   */
  ready(status: string, anew = false): void {
    const main = anew ? [`MAINPID=${Deno.pid}`] : [];
    this.#manager.tell([...main, "READY=1", `STATUS=${status}`]);
    const periodMs = this.#manager.watchdogPeriodMs;
    if (periodMs !== null) this.#watchdog = setInterval(() => this.#manager.tell(["WATCHDOG=1"]), periodMs);
  }

  /** Whether there is a manager. */
  get managed(): boolean {
    return this.#manager.present;
  }

  /** Leaves an fd with the manager, until `forget`; a name has one. Returns whether it was told. */
  keep(name: string, fd: Fd): boolean {
    // An eventfd that is signalled would else be taken for one that has failed.
    return this.#manager.tell(["FDSTORE=1", `FDNAME=${name}`, "FDPOLL=0"], fd);
  }

  /** Returns whether the manager was told. */
  forget(name: string): boolean {
    return this.#manager.tell(["FDSTOREREMOVE=1", `FDNAME=${name}`]);
  }

  /** Takes what was left with the manager, by name. Once. */
  takeFds(): Map<string, Fd> {
    return this.#manager.takeFds();
  }

  stopping(): void {
    this.#manager.tell(["STOPPING=1"]);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#watchdog);
    this.#manager[Symbol.dispose]();
  }
}
