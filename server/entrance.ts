/** Where clients come in: connections are accepted, and those that may be served let in. */

import type { Fd } from "../ffi/fd.ts";
import type { System } from "../ffi/system.ts";
import { Acceptor } from "../wire/acceptor.ts";
import { type AccessPolicy, type Peer, peerText } from "../wire/access.ts";
import { peerOf } from "../wire/peer.ts";
import type { RefusalReason } from "../wire/refusals.ts";
import type { ServerCounters } from "./counters.ts";

/** Who is let in, and where to. */
export interface EntranceOptions {
  readonly system: System;
  readonly access: AccessPolicy;
  readonly connectionsMax: number;
  readonly counters: ServerCounters;
  /** Takes the connection of somebody who is let in. */
  letIn(socket: Fd, peer: Peer): void;
  /** Counts what is refused, and tells of it. */
  refuse(reason: RefusalReason, text: string): void;
}

/** The listening socket of a server. Nobody is accepted until `resume`. */
export class Entrance {
  readonly #acceptor: Acceptor;

  /** @param listener Owned by the entrance from now on. */
  constructor(listener: Fd, private readonly options: EntranceOptions) {
    this.#acceptor = new Acceptor(listener, options.system, {
      accepted: (socket) => this.#welcome(socket),
      failed: ({ message }) => options.refuse("fds", `Failed to accept a client: ${message}`),
    });
  }

  /** Borrowed. */
  get listener(): Fd {
    return this.#acceptor.listener;
  }

  #welcome(socket: Fd): void {
    const peer = peerOf(this.options.system, socket);
    const refusal = this.#objection(peer);
    if (refusal === null) return this.options.letIn(socket, peer);
    socket.close();
    this.options.refuse(refusal.reason, `Refused a client (${peerText(peer)}): ${refusal.text}`);
  }

  #objection(peer: Peer): { reason: RefusalReason; text: string } | null {
    const { access, connectionsMax, counters } = this.options;
    if (!access.admits(peer)) {
      return { reason: "access", text: "neither --allow_user nor --allow_group names it" };
    }
    if (counters.connections < connectionsMax) return null;
    return { reason: "connections", text: `${connectionsMax} clients are connected (--max_connections)` };
  }

  /** Accepts nobody until `resume`. */
  suspend(): void {
    this.#acceptor.suspend();
  }

  resume(): void {
    this.#acceptor.resume();
  }

  close(): void {
    this.#acceptor.close();
  }
}
