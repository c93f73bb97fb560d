/**
 * The server's end of the links to its shadows (specification, section 3.2).
 *
 * Invariants: a shadow gets `init`, then every channel, then every event in order, or its link is closed; nobody
 * waits for a shadow except the start of the server, and that for a bounded time.
 */

import { getLogger } from "@logtape/logtape";
import { Errno, SystemError } from "../ffi/errno.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { connectAbstract } from "../ffi/unix_socket.ts";
import { Connection, ProtocolError } from "../wire/connection.ts";
import { sendEvent, type ShadowEventInit, tryReceiveEvent } from "../wire/shadow_link.ts";
import { receiveDump, sendChannels, type StateDump } from "../wire/state_dump.ts";
import type { Replication, ReplicationSource } from "./replication.ts";

const log = getLogger(["subspace", "server"]);

/** How long a server waits for its shadows. */
export interface ShadowPatience {
  /** For connecting and receiving the whole state dump. Default: 10000. */
  dumpMs?: number;
  /** For a shadow that takes nothing of what it is sent at the start. Default: 10000. */
  stallMs?: number;
  /** For what is still to be sent when the server stops. Default: 2000. */
  closeMs?: number;
}

/** How soon connecting is tried again where a shadow has too many connections waiting. */
const CONNECT_RETRY_MS = 10;

/** A shadow that is connected, and what it had when it was. */
export interface ConnectedShadow {
  readonly link: ShadowLink;
  /** Owned by whoever connected. */
  readonly dump: StateDump;
}

/** The link to one shadow. */
export class ShadowLink {
  readonly #connection: Connection;
  /** Its end has been logged, or is meant. */
  #endTold = false;

  private constructor(
    /** `primary` or `secondary`. */
    readonly label: string,
    connection: Connection,
    private readonly patience: Required<ShadowPatience>,
  ) {
    this.#connection = connection;
  }

  /** Connects to a shadow and receives its state. Logs why where it returns null. */
  static async connect(
    label: string,
    socket: string,
    patience: ShadowPatience = {},
  ): Promise<ConnectedShadow | null> {
    const limits = { dumpMs: 10_000, stallMs: 10_000, closeMs: 2_000, ...patience };
    const deadline = Date.now() + limits.dumpMs;
    let connection: Connection;
    try {
      connection = new Connection(await connectBefore(deadline, socket));
    } catch (error) {
      log.warn("Failed to connect to {label} shadow: {reason}", { label, reason: (error as Error).message });
      return null;
    }
    const timer = setTimeout(
      () => connection.close(new ProtocolError(`it was not complete within ${limits.dumpMs} ms`)),
      deadline - Date.now(),
    );
    try {
      const dump = await receiveDump(connection);
      log.info("Received state dump from shadow (session_id={session}, {channels} channels)", {
        session: dump.sessionId,
        channels: dump.channels.size,
      });
      return { link: new ShadowLink(label, connection, limits), dump };
    } catch (error) {
      connection.close();
      log.warn("Failed to receive state dump from {label} shadow: {reason}", {
        label,
        reason: (error as Error).message,
      });
      return null;
    } finally {
      clearTimeout(timer);
    }
  }

  get closed(): boolean {
    return this.#connection.closed;
  }

  /**
   * Makes the shadow forget what it has, and sends it everything. Events may follow when the promise has resolved.
   *
   * @param source Must not change until then.
   */
  async begin(source: ReplicationSource): Promise<void> {
    this.#connection.onReadable = () => this.#notice();
    this.send({ event: { case: "init", value: { sessionId: source.sessionId } } }, [source.scb]);
    await sendChannels(this.#connection, source.records(), this.patience.stallMs);
    // What is in the socket reaches the shadow even if this process is killed now; what waits here does not.
    await this.#connection.drained(this.patience.stallMs);
    if (!this.closed) log.info("Connected to {label} shadow process", { label: this.label });
  }

  /** Sends an event. Never waits; the fds stay the caller's. */
  send(event: ShadowEventInit, fds: readonly Fd[]): void {
    if (!this.closed) sendEvent(this.#connection, event, fds);
  }

  /** A shadow has nothing more to say. What can be noticed is that it is gone. */
  #notice(): void {
    const incoming = tryReceiveEvent(this.#connection);
    if (incoming !== null) {
      closeAll(incoming.fds);
      const what = incoming.message.event.case ?? "an unknown event";
      this.#connection.close(new ProtocolError(`Cannot accept ${what} from a shadow`));
    } else if (this.closed && !this.#endTold) {
      this.#endTold = true;
      log.error("Shadow: send failed: the {label} shadow is lost, and not used any more: {reason}", {
        label: this.label,
        reason: this.#connection.failure?.message ?? "it has closed the connection",
      });
    }
  }

  /** Closes the link when what was sent has gone out, or time is up. The shadow keeps the state. */
  async close(): Promise<void> {
    this.#endTold = true;
    const timer = setTimeout(() => this.#connection.close(), this.patience.closeMs);
    await this.#connection.drained();
    clearTimeout(timer);
    this.#connection.close();
  }
}

async function connectBefore(deadline: number, socket: string): Promise<Fd> {
  while (true) {
    try {
      return connectAbstract(socket);
    } catch (error) {
      const swamped = error instanceof SystemError && error.errno === Errno.EAGAIN;
      if (!swamped || Date.now() >= deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, CONNECT_RETRY_MS));
  }
}

/** Sends events to all shadows. */
export class Replicator implements Replication {
  constructor(private readonly links: readonly ShadowLink[]) {}

  get connected(): boolean {
    return this.links.some((link) => !link.closed);
  }

  replicate(event: ShadowEventInit, fds: readonly Fd[]): void {
    for (const link of this.links) link.send(event, fds);
  }

  async close(): Promise<void> {
    await Promise.all(this.links.map((link) => link.close()));
  }
}
