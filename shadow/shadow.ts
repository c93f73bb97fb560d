/**
 * A shadow: keeps a server's state, so that the server may be killed and come back (specification, section 3).
 *
 * Invariants: one connection at a time writes, the one whose `init` came while no other writer was connected; whoever
 * connects gets a consistent state that has in it all that a writer sent before it died; nobody waits for a reader.
 */

import { getLogger } from "@logtape/logtape";
import { SystemError } from "../ffi/errno.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { LoopMonitor } from "../ffi/loop_monitor.ts";
import { uid } from "../ffi/process.ts";
import type { System } from "../ffi/system.ts";
import { isWholeName } from "../ffi/unix_socket.ts";
import type { ShadowEvent, ShadowRequestState, ShadowResume } from "../proto/subspace_pb.ts";
import { Acceptor } from "../wire/acceptor.ts";
import { AccessPolicy, peerText } from "../wire/access.ts";
import { Connection, type Incoming, ProtocolError } from "../wire/connection.ts";
import { sendBriefDump } from "../wire/brief_dump.ts";
import { sendBriefBundles, sendBundledDump } from "../wire/bundled_dump.ts";
import { peerOf } from "../wire/peer.ts";
import { NOWHERE, type Position, previousSocket, replicationSocket } from "../wire/position.ts";
import { type RefusalReason, unsaidText } from "../wire/refusals.ts";
import { sendEvent, tryReceiveEvent } from "../wire/shadow_link.ts";
import { sendDump, sendHeader, type StateDump } from "../wire/state_dump.ts";
import { ShadowCounters, shadowCounters } from "./counters.ts";
import { logEvent } from "./event_log.ts";
import { FdStore, restore } from "./fd_store.ts";
import { Generations } from "./generations.ts";
import { defaultShadowOptions, type ShadowOptions } from "./options.ts";

export type { ShadowOptions } from "./options.ts";

const log = getLogger(["subspace", "shadow"]);

/** Events of one connection before the others get their turn. */
const EVENTS_PER_TURN = 256;
/** More events than fit into a socket: after so many, whoever died has nothing left to say. */
const EVENTS_LEFT_BEHIND_MAX = 1 << 16;

/** A socket to connect to, and what is found behind it. */
interface Door {
  readonly acceptor: Acceptor;
  /** Whether it leads to the state that is kept aside. */
  readonly previous: boolean;
  /** Whether the state is sent only to who asks for it. */
  readonly onRequest: boolean;
}

/** One server or inspector at the other end. */
interface Link {
  readonly connection: Connection;
  readonly door: Door;
  /** Who it is, for people. */
  readonly peer: string;
  readonly mayWrite: boolean;
  /** Whether the dump is still on its way. */
  reading: boolean;
  /** Set while more events wait for the next turn: how to let them wait for ever. */
  cancelNextTurn: (() => void) | null;
}

/** As the reference says it. */
const ACCEPTED = "Shadow accepted connection from server";

/** A running shadow. */
export class Shadow implements Disposable {
  readonly #options: Required<ShadowOptions>;
  readonly #system: System;
  readonly #generations: Generations;
  readonly #doors: Door[] = [];
  /** The oldest first. */
  readonly #links = new Set<Link>();
  #writer: Link | null = null;
  readonly #store: FdStore | null;
  #hearing = false;
  readonly #readers: AccessPolicy;
  readonly #writers: AccessPolicy;
  /** What this shadow did, and what it refused. */
  readonly counters = new ShadowCounters();
  readonly #loop: LoopMonitor;
  #stopped = false;

  private constructor(options: ShadowOptions) {
    this.#options = { ...defaultShadowOptions, ...options };
    const { keeper, kept, system } = this.#options;
    this.#system = system;
    this.#generations = new Generations(() => system.monotonicNs());
    this.#loop = new LoopMonitor(system);
    this.#store = keeper === null ? null : new FdStore(keeper, kept.keys(), system);
    this.#readers = new AccessPolicy(uid(), this.#options.readers);
    this.#writers = new AccessPolicy(uid(), this.#options.writers);
    const { socket } = options, previous = previousSocket(socket);
    try {
      this.#open(socket, false, false);
      this.#open(replicationSocket(socket), false, true);
      this.#open(previous, true, false);
      this.#open(replicationSocket(previous), true, true);
    } catch (error) {
      this.stop();
      throw error;
    }
    this.#restore(kept);
    log.info("Shadow listening on {socket}", { socket });
  }

  #restore(kept: ReadonlyMap<string, Fd>): void {
    const events = restore(kept, this.#generations);
    closeAll(kept.values());
    this.#store?.tidy(this.#generations);
    if (events === 0) return;
    log.info("Recovered {channels} channels from the service manager (session_id={session})", {
      channels: this.state.channels.size,
      session: this.state.sessionId,
    });
  }

  /** Opens a door. A name that would be cut off, and so be another door's, gets none. */
  #open(name: string, previous: boolean, onRequest: boolean): void {
    if (name !== this.#options.socket && !isWholeName(name)) return;
    const acceptor = new Acceptor(this.#system.listen(name), this.#system, {
      accepted: (socket) => this.#welcome(socket, door),
      failed: (error) =>
        this.#refuse(error instanceof SystemError ? "fds" : "protocol", `Shadow: ${error.message}`),
    });
    const door: Door = { acceptor, previous, onRequest };
    this.#doors.push(door);
    acceptor.resume();
  }

  /**
   * Starts to listen.
   *
   * @throws {SystemError} With code `EADDRINUSE` where somebody listens on the socket already.
   */
  static start(options: ShadowOptions): Shadow {
    return new Shadow(options);
  }

  /** The newest complete state. For reading: it changes with the next event. */
  get state(): StateDump {
    return this.#generations.state;
  }

  /** What the newest state replaced and does not contain; null for nothing. */
  get previous(): StateDump | null {
    return this.#generations.previous;
  }

  /** How far the newest state goes. */
  get position(): Position {
    return this.#generations.position;
  }

  /** Whether a server is still sending what it has: `state` is what the one before had then. */
  get filling(): boolean {
    return this.#generations.filling;
  }

  /** How many servers and readers are connected. */
  get connections(): number {
    return this.#links.size;
  }

  /** Closes all connections. Whoever wants to may connect again. */
  disconnect(): void {
    for (const link of this.#links) link.connection.close();
  }

  /** Closes all connections and forgets the state. */
  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#loop[Symbol.dispose]();
    for (const { acceptor } of this.#doors) acceptor.close();
    this.disconnect();
    this.#store?.[Symbol.dispose]();
    this.#generations[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    this.stop();
  }

  #welcome(socket: Fd, door: Door): void {
    const who = peerOf(this.#system, socket), peer = peerText(who);
    const mayWrite = this.#writers.admits(who);
    if (!mayWrite && !this.#readers.admits(who)) {
      socket.close();
      this.#refuse(
        "access",
        `Shadow refused a connection (${peer}): neither --allow_user nor --allow_group names it`,
      );
      return;
    }
    // Where one has to ask, nearly all who come only look: a monitor, every few seconds.
    if (door.onRequest) log.debug("Somebody asks ({peer})", { peer });
    else log.info(ACCEPTED);
    this.counters.accepted++;
    const connection = new Connection(socket, { frameBytesMax: this.#options.frameBytesMax }, this.#system);
    const link: Link = { connection, door, peer, mayWrite, reading: false, cancelNextTurn: null };
    this.#links.add(link);
    connection.onReadable = () => this.#readEvents(link);
    if (this.#links.size > this.#options.connectionsMax) this.#dropOldest();
    if (door.onRequest) this.#sendPosition(link);
    else this.#sendState(link).catch((error) => connection.close(error));
  }

  #sendPosition(link: Link): void {
    const { connection, door } = link;
    this.#hearOut(link);
    const { state, previous, position } = this.#generations;
    const shown = door.previous && previous !== null;
    // What is kept aside is nobody's to go on with.
    sendHeader(connection, shown ? previous : state, shown ? { ...NOWHERE, complete: true } : position);
  }

  /**
   * A server that was killed may have sent more than was read: its successor must see that.
   *
   * @param except Whoever is being listened to, or answered, now.
   */
  #hearOut(except: Link): void {
    if (this.#hearing) return;
    this.#hearing = true;
    // Whoever is not the writer may have sent its first word since, or all of them.
    for (const link of [...this.#links]) if (link !== except) this.#readAllOf(link);
    this.#hearing = false;
  }

  #dropOldest(): void {
    const oldest = this.#links.values().find((link) => link !== this.#writer);
    oldest?.connection.close(
      new ProtocolError(
        `Cannot keep more than ${this.#options.connectionsMax} connections: this is the oldest`,
        "connections",
      ),
    );
  }

  async #sendState(link: Link, send = sendDump): Promise<void> {
    if (link.reading) throw new ProtocolError("Cannot send the state: it is on its way already");
    link.reading = true;
    this.#hearOut(link);
    using snapshot = this.#generations.snapshot(link.door.previous);
    const { stallMs } = this.#options, { connection, door } = link;
    await send(connection, snapshot, stallMs, door.onRequest);
    link.reading = false;
    if (link.connection.closed) return;
    this.counters.dumpsSent++;
    const { sessionId, channels } = snapshot;
    log.debug("Shadow: sent state dump (session_id={session}, {channels} channels)", {
      session: sessionId,
      channels: channels.size,
    });
  }

  #readEvents(link: Link): void {
    if (link.cancelNextTurn !== null && !link.connection.closed) return;
    if (this.#readSome(link, EVENTS_PER_TURN)) return;
    link.cancelNextTurn = this.#system.after(0, () => {
      link.cancelNextTurn = null;
      this.#readEvents(link);
    });
  }

  #readAllOf(link: Link): void {
    this.#readSome(link, EVENTS_LEFT_BEHIND_MAX);
  }

  /** Applies events, so many at most. Returns whether that was all there are now. */
  #readSome(link: Link, eventsMax: number): boolean {
    for (let i = 0; i < eventsMax; i++) {
      const incoming = tryReceiveEvent(link.connection);
      if (incoming === null) {
        if (link.connection.closed) this.#ended(link);
        return true;
      }
      this.#handle(link, incoming);
    }
    return false;
  }

  #handle(link: Link, { message, fds }: Incoming<ShadowEvent>): void {
    // An empty frame is how the link is closed in so many words (section 1.2).
    if (message.event.case === undefined && message.$unknown === undefined) return link.connection.close();
    this.#loop.touch();
    if (link.door.onRequest && this.#answer(link, message)) return;
    // Of the server it counts, whatever it is; of others, what is not known is nothing.
    if (message.event.case === undefined && link !== this.#writer) return;
    try {
      this.#admit(link, message);
    } catch (error) {
      closeAll(fds);
      link.connection.close(error as Error);
      return;
    }
    if (message.event.case === "init") this.counters.noteFullSync(message.event.value);
    else if (message.event.case === "resume") this.counters.noteResume(message.event.value);
    this.#store?.note(message, fds, link.door.previous);
    try {
      this.#generations.apply(message, fds, link.door.previous);
      this.counters.events++;
      logEvent(log, message);
    } catch (error) {
      this.counters.eventsFailed++;
      log.error("Shadow: event handling failed: {reason}", { reason: reasonOf(error) });
    }
    this.#store?.tidy(this.#generations);
    if (this.#generations.heldFds > this.#options.heldFdsMax) this.#dropSlowest();
  }

  /** Answers what only ours ask. Returns false where it is no question. */
  #answer(link: Link, { event }: ShadowEvent): boolean {
    switch (event.case) {
      case "requestState":
        this.#sendState(link, senderFor(event.value)).catch((error) => link.connection.close(error));
        return true;
      case "requestReport":
        this.#sendReport(link.connection);
        return true;
      case "rollback":
      case "forget":
        this.#sendAnswer(link, event.case);
        return true;
      default:
        return false;
    }
  }

  #sendReport(connection: Connection): void {
    const { previous, heldFds } = this.#generations;
    const connections = Array.from(this.#links, (link) => link.connection);
    const value = {
      counters: shadowCounters(this.counters, heldFds, this.#loop, connections),
      serverSocket: this.counters.serverSocket,
      hasServer: this.#writer !== null,
      lastFullSync: this.counters.lastFullSync,
      previousSessionId: previous?.sessionId ?? 0n,
      previousChannels: previous?.channels.size ?? 0,
    };
    sendEvent(connection, { event: { case: "report", value } });
  }

  #sendAnswer(link: Link, what: "rollback" | "forget"): void {
    let error = "";
    try {
      this.#checkMayChange(link, what);
      if (what === "rollback") this.#generations.rollBack();
      else this.#generations.forget();
      this.#store?.begin(this.#generations);
      log.info("Shadow: {what}, as {peer} asked for", { what, peer: link.peer });
    } catch (cause) {
      error = reasonOf(cause);
      log.warn("Shadow: no {what} for {peer}: {reason}", { what, peer: link.peer, reason: error });
    }
    sendEvent(link.connection, { event: { case: "answer", value: { error } } });
  }

  #checkMayChange(link: Link, what: "rollback" | "forget"): void {
    if (!link.mayWrite) {
      this.counters.refusals.count("write_access", this.#system.monotonicNs());
      throw new Error(`${link.peer} may read only; name it in --allow_server_user`);
    }
    this.#hearOut(link);
    if (what === "rollback" && this.#writer !== null) {
      throw new Error(
        "a server is connected, and would go on with what is not there any more; stop it first",
      );
    }
  }

  /** Lets only the writer write. A new one begins with `init`, when the one before is gone. */
  #admit(link: Link, { event }: ShadowEvent): void {
    if (link === this.#writer) {
      if (event.case === "resume") this.#checkResumable(event.value);
      return;
    }
    if (!link.mayWrite) {
      throw new ProtocolError(
        `Cannot accept ${event.case} from ${link.peer}: it may read only; name it in --allow_server_user`,
        "write_access",
      );
    }
    if (event.case !== "init" && event.case !== "resume") {
      throw new ProtocolError(`Cannot accept ${event.case} before init`);
    }
    this.#hearOut(link);
    if (event.case === "resume") this.#checkResumable(event.value);
    if (this.#writer !== null) {
      throw new ProtocolError(
        "Cannot accept init: another server is connected, and two would corrupt each other's channels; stop one first",
        "second_writer",
      );
    }
    this.#writer = link;
    if (link.door.onRequest) log.info(ACCEPTED);
  }

  #checkResumable({ position: at, generation }: ShadowResume): void {
    const position: Position = at ?? NOWHERE;
    this.#generations.checkResumable(position, generation || position.generation);
  }

  #dropSlowest(): void {
    const slowest = this.#links.values().find((link) => link.reading);
    slowest?.connection.close(
      new ProtocolError(
        `Cannot keep more than ${this.#options.heldFdsMax} fds for readers: this one is the slowest`,
        "stalled",
      ),
    );
  }

  #ended(link: Link): void {
    if (!this.#links.delete(link)) return;
    link.cancelNextTurn?.();
    const { failure } = link.connection;
    if (failure === null) {
      if (link.door.onRequest && link !== this.#writer) {
        log.debug("Whoever asked is gone ({peer})", { peer: link.peer });
      } else log.info("Server disconnected");
    } else {
      const reason = failure instanceof ProtocolError ? failure.reason : "protocol";
      this.#refuse(reason, `Shadow receive failed: ${failure.message}`);
    }
    if (link !== this.#writer) return;
    this.#writer = null;
    this.#generations.abandon();
    log.debug("Shadow waiting for new server connection");
  }

  #refuse(reason: RefusalReason, text: string): void {
    const verdict = this.counters.refusals.count(reason, this.#system.monotonicNs());
    if (verdict.log) log.error("{text}{unsaid}", { text, unsaid: unsaidText(verdict) });
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** How to send the state that somebody asked for. */
function senderFor({ brief, bundles }: ShadowRequestState): typeof sendDump {
  if (brief) return bundles ? sendBriefBundles : sendBriefDump;
  return bundles ? sendBundledDump : sendDump;
}
