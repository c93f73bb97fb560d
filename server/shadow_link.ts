/**
 * The server's link to one shadow: found, fed, lost, and looked for again (specification, section 3.2).
 *
 * Invariants: a shadow gets `init`, then every channel, then every change in order, or goes on where it was; nobody
 * waits for it but the start of the server, and that for a bounded time; what waits for it is a place in the journal.
 */

import { getLogger } from "@logtape/logtape";
import { Errno, SystemError } from "../ffi/errno.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import type { System } from "../ffi/system.ts";
import { isWholeName } from "../ffi/unix_socket.ts";
import { type AccessPolicy, peerText } from "../wire/access.ts";
import { receiveBundledDump } from "../wire/bundled_dump.ts";
import { Connection, ProtocolError } from "../wire/connection.ts";
import { peerOf } from "../wire/peer.ts";
import { type Position, replicationSocket } from "../wire/position.ts";
import { inOldProtocol, sendEvent, type ShadowEventInit, tryReceiveEvent } from "../wire/shadow_link.ts";
import { channelEvents, closeDump, receiveDump, receiveHeader, type StateDump } from "../wire/state_dump.ts";
import type { Journal } from "./journal.ts";
import type { HandedLink, ReplicationSource, ShadowStatus, SyncReason } from "./replication.ts";

const log = getLogger(["subspace", "server"]);

/** How long a server waits for its shadows. */
export interface ShadowPatience {
  /** For connecting and receiving the whole state dump. Default: 10000. */
  dumpMs?: number;
  /** For a shadow that takes nothing while it is sent everything. Default: 10000. */
  stallMs?: number;
  /** For what is still to be sent when the server stops. Default: 2000. */
  closeMs?: number;
  /** Before a lost shadow is looked for the first time; twice as long each time after. Default: 50. */
  retryMs?: number;
  /** The longest time between two looks. Default: 2000. */
  retryMaxMs?: number;
}

/** How soon connecting is tried again where a shadow has too many connections waiting. */
const CONNECT_RETRY_MS = 10;
/** A limit of time is waited for in so many parts. */
const LIMIT_PARTS = 10;
/** What may be on the way to a shadow before the rest stays in the journal. */
const AHEAD_BYTES = 64 * 1024;

/** What a shadow says of itself when it is connected to. */
export interface Offer {
  readonly connection: Connection;
  readonly position: Position;
  /** Of the session that it knows; 0 for none. */
  readonly sessionId: bigint;
  /** Whether it is one of ours, which can go on where it was. */
  readonly resumable: boolean;
  /** Its state, where it was sent unasked. */
  readonly dump: StateDump | null;
  /** Whether it was asked for its state. */
  readonly asked?: boolean;
  /** Whether the server was recovered from it, and has just what it has. */
  readonly agrees?: boolean;
  /** Whether another server wrote over this connection until now, all that there was. */
  readonly inherited?: boolean;
}

/** A link that another server had, with its connection, which is suspended. */
export interface InheritedLink extends Omit<HandedLink, "name" | "connection"> {
  readonly connection: Connection | null;
  readonly resumable: boolean;
}

/** All that happens in a server, for its shadows. */
export interface History {
  readonly generation: bigint;
  readonly source: ReplicationSource;
  readonly journal: Journal;
  /** Where the server listens; empty where that is nobody's concern. */
  readonly serverSocket: string;
}

/** The link to one shadow. */
export class ShadowLink implements ShadowStatus {
  readonly #patience: Required<ShadowPatience>;
  #connection: Connection | null = null;
  /** What it is fed by. */
  #offer: Offer | null = null;
  #history: History | null = null;
  /** Offset of the last change that it was told, or need not be. */
  #cursor = 0;
  #connected = false;
  #stopped = false;
  /** Set while there is nothing to do. */
  #wake: (() => void) | null = null;
  #interrupt: (() => void) | null = null;
  readonly syncFull = new Map<SyncReason, number>();
  syncPartial = 0;
  lastFullSync: SyncReason | null = null;

  constructor(
    /** `primary`, `secondary`, `3rd`. */
    readonly label: string,
    readonly socket: string,
    patience: ShadowPatience,
    private readonly trusted: AccessPolicy,
    private readonly system: System,
  ) {
    this.#patience = {
      dumpMs: 10_000,
      stallMs: 10_000,
      closeMs: 2_000,
      retryMs: 50,
      retryMaxMs: 2_000,
      ...patience,
    };
  }

  get connected(): boolean {
    return this.#connected;
  }

  get lag(): number {
    return this.#history === null ? 0 : this.#history.journal.end - this.#cursor;
  }

  /**
   * Connects, and hears what the shadow has. Returns null where that fails, and logs why unless `quiet`.
   *
   * @param wanted Whether its state, if it has any, is taken from nowhere else: then it is asked for at once.
   */
  async open(quiet = false, wanted = false): Promise<Offer | null> {
    const deadline = this.system.monotonicMs() + this.#patience.dumpMs;
    const { label } = this;
    const warn = (what: string, error: unknown) => {
      if (!quiet) log.warn(`${what} {label} shadow: {reason}`, { label, reason: (error as Error).message });
      return null;
    };
    let resumable: boolean, connection: Connection;
    try {
      const found = await this.#find(deadline);
      ({ resumable } = found);
      connection = this.#connection = new Connection(found.socket, {}, this.system);
    } catch (error) {
      return warn("Failed to connect to", error);
    }
    const cancelLimit = this.#limit(connection);
    try {
      const heard = await hear(connection, resumable);
      const asked = wanted && resumable && heard.sessionId !== 0n;
      if (asked) askForState(connection);
      if (!quiet) sayReceived(heard.sessionId, heard.numChannels);
      return { connection, resumable, asked, ...heard };
    } catch (error) {
      connection.close();
      return warn("Failed to receive state dump from", error);
    } finally {
      cancelLimit();
    }
  }

  /** Takes the state that an offer is about; the caller owns it. */
  async take({ connection, dump, asked }: Offer): Promise<StateDump> {
    if (dump !== null) return dump;
    const cancelLimit = this.#limit(connection);
    try {
      if (!asked) askForState(connection);
      return await receiveBundledDump(connection);
    } finally {
      cancelLimit();
    }
  }

  /**
   * Limits how long a shadow may take. Time in which this process was stopped hardly counts: what came meanwhile is
   * still to be read. Returns how to lift the limit.
   */
  #limit(connection: Connection): () => void {
    const { dumpMs } = this.#patience;
    const wait = (parts: number): () => void =>
      this.system.after(dumpMs / LIMIT_PARTS, () => {
        if (parts > 1) cancel = wait(parts - 1);
        else connection.close(new ProtocolError(`it was not complete within ${dumpMs} ms`));
      });
    let cancel = wait(LIMIT_PARTS);
    return () => cancel();
  }

  /** Ours listen on a second name; where nobody does, it is one of the reference's. */
  async #find(deadline: number): Promise<{ socket: Fd; resumable: boolean }> {
    const name = replicationSocket(this.socket);
    try {
      if (isWholeName(name)) return { socket: await this.#connectBefore(deadline, name), resumable: true };
    } catch (error) {
      if (!(error instanceof SystemError) || error.errno !== Errno.ECONNREFUSED) throw error;
    }
    return { socket: await this.#connectBefore(deadline, this.socket), resumable: false };
  }

  async #connectBefore(deadline: number, socket: string): Promise<Fd> {
    while (true) {
      try {
        return this.#checked(this.system.connect(socket));
      } catch (error) {
        const swamped = error instanceof SystemError && error.errno === Errno.EAGAIN;
        if (!swamped || this.system.monotonicMs() >= deadline) throw error;
      }
      await new Promise<void>((resolve) => this.system.after(CONNECT_RETRY_MS, resolve));
    }
  }

  /** Whoever listens gets all memory: not just anybody may take that name. */
  #checked(socket: Fd): Fd {
    const peer = peerOf(this.system, socket);
    if (this.trusted.admits(peer)) return socket;
    socket.close();
    throw new Error(
      `whoever listens there (${peerText(peer)}) is not trusted; --allow_shadow_user names who is`,
    );
  }

  /**
   * Tells the shadow all that happens from now on, also when it is lost and comes back. Resolves when it has had
   * everything, or cannot have it.
   *
   * @param offer null where it was not there.
   */
  begin(history: History, offer: Offer | null): Promise<void> {
    this.#history = history;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#keepFeeding(history, offer, resolve).finally(resolve);
    return promise;
  }

  async #keepFeeding(history: History, first: Offer | null, settled: () => void): Promise<void> {
    let offer = first, reason: SyncReason = "start", failures = 0;
    while (!this.#stopped) {
      if (offer !== null) {
        failures = 0;
        await this.#feed(
          history,
          offer,
          offer.resumable || reason === "start" ? reason : "reference",
          settled,
        );
        this.#connected = false;
        this.#sayLost(offer.connection);
      }
      settled();
      reason = "new";
      await this.#rest(
        Math.min(this.#patience.retryMs * 2 ** Math.min(failures++, 16), this.#patience.retryMaxMs),
      );
      offer = this.#stopped ? null : await this.open(true);
      if (offer?.dump) closeDump(offer.dump);
    }
  }

  /** Feeds the shadow until the connection ends. */
  async #feed(history: History, offer: Offer, reason: SyncReason, settled: () => void): Promise<void> {
    const { connection, position } = offer, { journal } = history;
    this.#offer = offer;
    connection.onReadable = () => this.#notice(connection);
    const known = offer.resumable && position.complete && position.generation === history.generation;
    // Events are counted from the beginning of a generation.
    const offset = offer.agrees ? 0 : known ? Number(position.offset) : null;
    // Whether it still has to be told that it has everything.
    let catchingUp = !offer.inherited;
    if (offer.inherited) {
      this.#cursor = Number(position.offset);
      this.#connected = true;
      settled();
    } else if (offset !== null && journal.reaches(offset)) {
      this.#goOn(history, offer, offset);
    } else {
      await this.#sendAll(history, offer, known ? "behind" : reason);
    }
    while (!connection.closed) {
      if (!journal.reaches(this.#cursor)) {
        catchingUp = true;
        await this.#sendAll(history, offer, "behind");
      } else if (this.#cursor < journal.end) {
        const event = history.source.eventOf(journal.at(++this.#cursor));
        if (event !== null) this.#send(offer, ...event);
        if (connection.outboundBytes > AHEAD_BYTES) await connection.drained();
      } else if (catchingUp) {
        catchingUp = false;
        if (offer.resumable) this.#send(offer, { event: { case: "stateComplete", value: {} } }, []);
        // What is in the socket reaches the shadow even if this process is killed now; what waits here does not.
        await connection.drained(this.#patience.stallMs);
        if (connection.closed || this.#connected) continue;
        this.#connected = true;
        log.info("Connected to {label} shadow process", { label: this.label });
        settled();
      } else {
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
    }
  }

  /** Begins with what comes after an offset: all before it is there. */
  #goOn(
    { generation, serverSocket }: History,
    { connection, position, agrees }: Offer,
    offset: number,
  ): void {
    this.#cursor = offset;
    this.syncPartial++;
    if (!agrees) {
      log.info(
        "Shadow: the {label} shadow gets the {count} changes that it missed (sync_partial={partial})",
        { label: this.label, count: this.lag, partial: this.syncPartial },
      );
    }
    sendEvent(connection, { event: { case: "resume", value: { position, generation, serverSocket } } });
  }

  /** Sends everything. Channels may change meanwhile: those changes come again from the journal. */
  async #sendAll(history: History, offer: Offer, reason: SyncReason): Promise<void> {
    const { generation, source, journal, serverSocket } = history, { connection, resumable } = offer;
    const count = (this.syncFull.get(reason) ?? 0) + 1;
    this.syncFull.set(reason, count);
    this.lastFullSync = reason;
    if (reason !== "start") {
      log.info("Shadow: the {label} shadow gets everything (sync_full={count}, reason={reason})", {
        label: this.label,
        count,
        reason,
      });
    }
    this.#cursor = journal.end;
    const { sessionId } = source;
    const ours = resumable ? { generation, syncReason: reason, serverSocket } : {};
    this.#send(offer, { event: { case: "init", value: { sessionId, ...ours } } }, [source.scb]);
    for (const channel of source.records()) {
      // A channel at once, because its fds are borrowed.
      for (const [event, fds] of channelEvents(channel)) this.#send(offer, event, fds);
      if (connection.outboundBytes > AHEAD_BYTES) await connection.drained(this.#patience.stallMs);
      if (connection.closed) return;
    }
  }

  #send(
    { connection, resumable }: Pick<Offer, "connection" | "resumable">,
    event: ShadowEventInit,
    fds: readonly Fd[],
  ): void {
    if (connection.closed) return;
    sendEvent(connection, resumable ? { ...event, offset: BigInt(this.#cursor) } : inOldProtocol(event), fds);
  }

  /** Takes the newest change, with its event. Sends it at once if nothing waits before it; the fds stay the caller's. */
  changed(event: ShadowEventInit, fds: readonly Fd[]): void {
    const offer = this.#offer;
    if (this.#wake === null || offer === null) return;
    if (this.lag === 1 && offer.connection.outboundBytes <= AHEAD_BYTES) {
      this.#cursor++;
      this.#send(offer, event, fds);
    } else {
      this.#wakeUp();
    }
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = null;
    wake?.();
  }

  /** A shadow has nothing more to say. What can be noticed is that it is gone. */
  #notice(connection: Connection): void {
    const incoming = tryReceiveEvent(connection);
    if (incoming !== null) {
      closeAll(incoming.fds);
      const what = incoming.message.event.case ?? "an unknown event";
      connection.close(new ProtocolError(`Cannot accept ${what} from a shadow`));
    }
    if (connection.closed) this.#wakeUp();
  }

  #sayLost({ failure }: Connection): void {
    if (this.#stopped) return;
    log.error("Shadow: send failed: the {label} shadow is lost, and looked for from now on: {reason}", {
      label: this.label,
      reason: failure?.message ?? "it has closed the connection",
    });
  }

  #rest(ms: number): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.system.after(ms, resolve);
    this.#interrupt = () => {
      cancel();
      resolve();
    };
    return promise;
  }

  /** Says nothing more until `resume`, if the shadow knows everything. Returns what there is to go on with then. */
  suspend(): HandedLink {
    const { socket: name, syncFull, lastFullSync, syncPartial } = this, offer = this.#offer;
    const link = { name, syncFull, lastFullSync, syncPartial };
    if (offer === null || this.#wake === null || this.lag > 0) return { ...link, connection: null };
    const { connection, resumable } = offer;
    return { ...link, connection: { socket: connection.socket, state: connection.suspend(), resumable } };
  }

  resume(): void {
    this.#connection?.resume();
  }

  /** Goes on where another server was. null where it has no connection. */
  inherit(
    { syncFull, lastFullSync, syncPartial, connection, resumable }: InheritedLink,
    generation: bigint,
    offset: number,
  ): Offer | null {
    for (const [reason, count] of syncFull) this.syncFull.set(reason, count);
    this.lastFullSync = lastFullSync;
    this.syncPartial = syncPartial;
    if (connection === null) return null;
    this.#connection = connection;
    return {
      connection,
      position: { generation, offset: BigInt(offset), complete: true },
      sessionId: 0n,
      resumable,
      dump: null,
      inherited: true,
    };
  }

  /** Lets go of the link: another server goes on with it, or looks for the shadow itself. */
  abandon(): void {
    this.#stopped = true;
    this.#interrupt?.();
    this.#connection?.close();
    this.#wakeUp();
  }

  /** Closes the link when what was sent has gone out, or time is up. The shadow keeps the state. */
  async close(): Promise<void> {
    this.#stopped = true;
    this.#interrupt?.();
    const connection = this.#connection;
    if (connection === null) return;
    const cancel = this.system.after(this.#patience.closeMs, () => connection.close());
    if (this.#connected) await connection.drained();
    cancel();
    connection.close();
    this.#wakeUp();
  }
}

function askForState(connection: Connection): void {
  sendEvent(connection, { event: { case: "requestState", value: { bundles: true } } });
}

/** What a shadow has: ours say where they are, the reference's send everything at once. */
async function hear(
  connection: Connection,
  resumable: boolean,
): Promise<{ sessionId: bigint; numChannels: number; position: Position; dump: StateDump | null }> {
  if (resumable) return { ...await receiveHeader(connection), dump: null };
  const dump = await receiveDump(connection);
  const { sessionId, channels } = dump;
  // When the session began is the least that is known of when its server did.
  const position = { generation: sessionId, offset: 0n, complete: dump.scb !== null };
  return { sessionId, numChannels: channels.size, position, dump };
}

function sayReceived(session: bigint, channels: number): void {
  log.info("Received state dump from shadow (session_id={session}, {channels} channels)", {
    session,
    channels,
  });
}
