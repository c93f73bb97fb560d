/** What dead processes left behind, of which nobody tells: it takes looking, again and again. */

import { getLogger } from "@logtape/logtape";
import type { Timers } from "../ffi/system.ts";
import type { ChannelTable } from "./channel_table.ts";
import type { ServerOptions } from "./options.ts";

const log = getLogger(["subspace", "server"]);

/** Looks through a table from time to time, from the first `resume` on. */
export class Housekeeping {
  #cancelCheck: () => void = () => {};
  #cancelGrace: () => void = () => {};

  constructor(
    private readonly table: ChannelTable,
    private readonly timers: Timers,
    private readonly options: Pick<ServerOptions, "orphanCheckMs" | "orphanGraceMs">,
  ) {}

  #check(): void {
    try {
      this.table.reapOrphans();
      this.table.sweep();
    } catch (error) {
      log.error("Failed to remove what dead processes left: {reason}", { reason: (error as Error).message });
    }
    this.#cancelCheck = this.timers.after(this.options.orphanCheckMs ?? 2000, () => this.#check());
  }

  /** Touches nothing until `resume`. */
  suspend(): void {
    this.#cancelCheck();
    this.#cancelGrace();
  }

  resume(): void {
    this.suspend();
    this.#check();
    const { orphanGraceMs = 0 } = this.options;
    if (orphanGraceMs > 0) {
      this.#cancelGrace = this.timers.after(orphanGraceMs, () => this.table.dismissOrphans());
    }
  }
}
