/** What happens in a server, told to all of its shadows. */

import type { Fd } from "../ffi/fd.ts";
import type { ShadowEventInit } from "../wire/shadow_link.ts";
import { Journal } from "./journal.ts";
import type { HandedReplication, Replication, ReplicationSource } from "./replication.ts";
import { changeOf } from "./shadow_records.ts";
import type { History, Offer, ShadowLink } from "./shadow_link.ts";

/** Sends events to all shadows, and keeps what changed for those that are away. */
export class Replicator implements Replication {
  readonly #journal: Journal;
  readonly #history: History;

  /**
   * @param generation Higher than that of any server before, or that of the server that this one took over from.
   * @param serverSocket Where the server listens, for those who look at a shadow.
   * @param offset Of the newest change in that generation.
   */
  constructor(
    readonly shadows: readonly ShadowLink[],
    generation: bigint,
    source: ReplicationSource,
    journalChangesMax: number,
    serverSocket = "",
    offset = 0,
  ) {
    this.#journal = new Journal(journalChangesMax, offset);
    this.#history = { generation, source, journal: this.#journal, serverSocket };
  }

  get generation(): bigint {
    return this.#history.generation;
  }

  get offset(): number {
    return this.#journal.end;
  }

  /** Begins to feed the shadows. Resolves when each has had everything, or cannot have it now. */
  async begin(offers: readonly (Offer | null)[]): Promise<void> {
    await Promise.all(this.shadows.map((shadow, i) => shadow.begin(this.#history, offers[i])));
  }

  get connected(): boolean {
    return this.shadows.some(({ connected }) => connected);
  }

  replicate(event: ShadowEventInit, fds: readonly Fd[]): void {
    this.#journal.append(changeOf(event));
    for (const shadow of this.shadows) shadow.changed(event, fds);
  }

  suspend(): HandedReplication {
    const { generation, journal } = this.#history;
    return { generation, offset: journal.end, links: this.shadows.map((shadow) => shadow.suspend()) };
  }

  resume(): void {
    for (const shadow of this.shadows) shadow.resume();
  }

  abandon(): void {
    for (const shadow of this.shadows) shadow.abandon();
  }

  async close(): Promise<void> {
    await Promise.all(this.shadows.map((shadow) => shadow.close()));
  }
}
