/** A subspace server: listens, recovers what its shadows kept, and serves clients (specification, section 3.2). */

import { getLogger } from "@logtape/logtape";
import { SystemError } from "../ffi/errno.ts";
import type { Fd } from "../ffi/fd.ts";
import { LoopMonitor } from "../ffi/loop_monitor.ts";
import { uid } from "../ffi/process.ts";
import { operatingSystem, type System } from "../ffi/system.ts";
import { claimListener } from "../ffi/unix_socket.ts";
import { AccessPolicy, type Peer, peerText } from "../wire/access.ts";
import type { Connection } from "../wire/connection.ts";
import { isTooMuch } from "../wire/hand_over.ts";
import { type RefusalReason, unsaidText } from "../wire/refusals.ts";
import { begin, type Beginning, cleanupFilesystem, serverId } from "./beginning.ts";
import type { ChannelTable } from "./channel_table.ts";
import { ServerCounters, serverReport } from "./counters.ts";
import { Entrance } from "./entrance.ts";
import { systemHost } from "./host.ts";
import { Housekeeping } from "./housekeeping.ts";
import { defaultServerLimits, type ServerLimits } from "./limits.ts";
import { DEFAULT_SOCKET, type ServerOptions, shadowNames, TAKEOVER_MS } from "./options.ts";
import { handOver, type HandOverResult } from "./predecessor.ts";
import type { Replication, ShadowStatus } from "./replication.ts";
import { ServerChannels } from "./server_channels.ts";
import { clientConnection, type HandedClient, Session, type SessionOwner } from "./session.ts";
import { type Inheritance, takeOver } from "./successor.ts";
import type { Refusal } from "./takeover.ts";
import { Client } from "./users.ts";

export type { ServerOptions } from "./options.ts";

const log = getLogger(["subspace", "server"]);

/** The server on a socket cannot be taken over; it goes on. */
export class TakeoverError extends Error {
  override readonly name = "TakeoverError";

  constructor(socket: string, reason: string) {
    super(`Cannot take over the server at ${socket}: ${reason}`);
  }
}

/** A running server. */
export class Server implements SessionOwner {
  readonly #sessions = new Set<Session>();
  readonly limits: ServerLimits;
  /** All state. */
  readonly table: ChannelTable;
  /** What this server did, and what it refused. */
  readonly counters: ServerCounters;
  /** @inheritdoc */
  readonly loop: LoopMonitor;
  readonly #replication: Replication | null;
  readonly #entrance: Entrance;
  readonly #channels: ServerChannels | null;
  readonly #housekeeping: Housekeeping;
  #stopped: Promise<void> | null = null;
  /** The hand-over that is on its way; null for none. */
  #handOver: Promise<void> | null = null;
  #successor: Peer | null = null;
  /** Of the server before, if this one took over. */
  #release: Disposable | null = null;
  readonly #takenOver = Promise.withResolvers<void>();

  private constructor(
    { listener, table, replication, counters = new ServerCounters() }: Beginning,
    private readonly options: ServerOptions,
    readonly system: System,
  ) {
    const { timers = system, publishServerChannels = true, statisticsPeriodMs = 2000 } = options;
    this.table = table;
    this.#replication = replication;
    this.counters = counters;
    this.limits = { ...defaultServerLimits, ...options.limits };
    this.#channels = publishServerChannels
      ? new ServerChannels(table, {
        serverId: serverId(table.host, system.pid, options),
        client: new Client(system.pid, true),
        statisticsPeriodMs,
        timers,
      })
      : null;
    this.#housekeeping = new Housekeeping(table, timers, options);
    this.#entrance = new Entrance(listener, {
      system,
      access: new AccessPolicy(uid(), options.access),
      connectionsMax: this.limits.connectionsMax,
      counters,
      letIn: (socket, peer) => this.#letIn(socket, peer),
      refuse: (reason, text) => this.#say(reason, text),
    });
    this.loop = new LoopMonitor(system);
    table.effects = {
      replicate: (event, fds) => replication?.replicate(event, fds),
      directoryChanged: () => this.#channels?.directoryChanged(),
    };
  }

  /** Begins to serve. Whatever may be refused by the system was asked for before, or is done without. */
  #begin(): void {
    this.#channels?.resume();
    this.#housekeeping.resume();
    this.#entrance.resume();
  }

  /**
   * Starts a server. Resolves when it serves clients; those that connected meanwhile wait.
   *
   * @throws {SystemError} With code `EADDRINUSE` where another server listens on the socket.
   */
  static async start(options: ServerOptions = {}): Promise<Server> {
    const { socket = DEFAULT_SOCKET, host = systemHost, system = operatingSystem } = options;
    using cleanup = new DisposableStack();
    const listener = cleanup.use(system.listen(socket));
    const { table, replication } = await begin(options, host, system);
    cleanup.use(table);
    if (options.cleanupFilesystem && table.size === 0) cleanupFilesystem(host);
    const server = new Server({ listener, table, replication }, options, system);
    cleanup.move();
    server.#begin();
    return server;
  }

  /**
   * Goes on in the place of the server on the socket, which hands over all that it has, its clients' connections
   * included, and ends. Where there is none, starts as `start` does.
   *
   * @throws {TakeoverError} If that server does not hand over. It goes on.
   */
  static async takeOver(options: ServerOptions = {}): Promise<Server> {
    const { socket = DEFAULT_SOCKET, host = systemHost, system = operatingSystem } = options;
    const outcome = await takeOver({
      socket,
      shadows: shadowNames(options),
      shadowPatience: options.shadowPatience ?? {},
      limits: { ...defaultServerLimits, ...options.limits },
      patienceMs: options.takeoverMs ?? TAKEOVER_MS,
      host,
      system,
    }, (inheritance) => {
      const server = new Server(inheritance, options, system);
      return { server, inheritance, [Symbol.dispose]: () => server.#entrance.close() };
    });
    if (outcome.step !== "serve") return await startInstead(outcome, options, socket);
    const { server, inheritance } = outcome.heir;
    server.#inherit(inheritance);
    server.#release = outcome.release;
    return server;
  }

  /** Begins to serve where another server was until now. */
  #inherit({ table, clients, replication, offers, pid }: Inheritance): void {
    this.#begin();
    replication?.begin(offers);
    replication?.resume();
    for (const { peer, connection, client } of clients) {
      const session = new Session(this, peer, connection, client);
      this.counters.connections++;
      this.#serve(session);
      session.resume();
    }
    log.info(
      "Took over {channels} channels and {clients} clients from process {pid} (session_id={session})",
      {
        channels: table.size,
        clients: clients.length,
        pid,
        session: table.sessionId,
      },
    );
  }

  /** Resolves when another server has taken over from this one, which has stopped then. */
  get takenOver(): Promise<void> {
    return this.#takenOver.promise;
  }

  /** The id of the session, in the names of all message buffers. */
  get sessionId(): bigint {
    return this.table.sessionId;
  }

  /** Whether a shadow has the state: then it outlives this server, and `stop` leaves everything as it is. */
  get keepsState(): boolean {
    return this.#replication?.connected ?? false;
  }

  /** How each shadow is, in the order of preference. */
  get shadows(): readonly ShadowStatus[] {
    return this.#replication?.shadows ?? [];
  }

  /** How many clients are connected. */
  get numClients(): number {
    return this.#sessions.size;
  }

  #letIn(socket: Fd, peer: Peer): void {
    const connection = clientConnection(socket, this.limits, this.system);
    this.counters.connected();
    this.#serve(new Session(this, peer, connection));
  }

  /** @inheritdoc */
  report() {
    const connections = this.#sessions.values().map(({ connection }) => connection);
    return serverReport(this.counters, this.table, this.#replication, this.loop, connections);
  }

  #say(reason: RefusalReason, text: string): void {
    const verdict = this.counters.refusals.count(reason, this.table.host.monotonicNs());
    if (verdict.log) log.error("{text}{unsaid}", { text, unsaid: unsaidText(verdict) });
  }

  async #serve(session: Session): Promise<void> {
    this.#sessions.add(session);
    let successor: Connection | null = null;
    try {
      successor = await session.run();
    } catch (error) {
      log.error("Failed to end the session of a client: {reason}", { reason: (error as Error).message });
    }
    this.#sessions.delete(session);
    this.counters.connections--;
    if (successor === null) return;
    this.#handOver = this.#handOverTo(successor, session.peer);
    await this.#handOver;
    this.#handOver = this.#successor = null;
  }

  /** @inheritdoc */
  refuseTakeover(peer: Peer): string | null {
    // Whoever may be a client gets some memory; this is for all of it.
    if (!new AccessPolicy(uid()).admits(peer)) {
      this.#say("access", `Refused to be taken over (${peerText(peer)}): it is another user`);
      return "PERMISSION_DENIED: only root and the user that it runs as may take it over";
    }
    if (this.#successor !== null) {
      return `ABORTED: process ${this.#successor.pid} is taking it over already`;
    }
    this.#successor = peer;
    return null;
  }

  async #handOverTo(connection: Connection, { pid }: Peer): Promise<void> {
    if (this.#stopped !== null) return connection.close();
    log.info("Handing over to process {pid}", { pid });
    const result = await this.#offer(connection, pid).catch((error) => {
      connection.close();
      return { done: false, reason: (error as Error).message, touched: false } as const;
    });
    if (result.done) {
      log.info("Handed over {channels} channels and {clients} clients to process {pid}", {
        channels: this.table.size,
        clients: this.#sessions.size,
        pid,
      });
      this.#leave();
    } else {
      log.error("Failed to hand over to process {pid}, and going on: {reason}", {
        pid,
        reason: result.reason,
      });
      this.#goOn(result.touched);
    }
  }

  /** Does nothing any more, and hands all of it over. */
  async #offer(connection: Connection, pid: number): Promise<HandOverResult> {
    const { table, counters } = this, { listener } = this.#entrance;
    // Sessions may be about to notice that their connection has ended. Nothing may change any more when they do.
    for (const { connection, client } of this.#sessions) if (connection.closed) table.disconnect(client);
    this.#entrance.suspend();
    this.#housekeeping.suspend();
    table.leaveOrphans();
    this.#channels?.suspend();
    const clients = [...this.#sessions].filter(({ connection }) => !connection.closed)
      .map((session) => session.suspend()).filter(mayGoOver);
    const replication = this.#replication?.suspend() ?? null;
    const { takeoverMs: patienceMs = TAKEOVER_MS, standalone = false } = this.options;
    const estate = { table, listener, clients, replication, counters, standalone };
    return await handOver(connection, pid, estate, patienceMs, this.system);
  }

  /** Leaves everything to the server that has taken over. */
  #leave(): void {
    this.#stopped = Promise.resolve();
    this.#release?.[Symbol.dispose]();
    this.#entrance.close();
    this.loop[Symbol.dispose]();
    this.#channels?.abandon();
    for (const session of this.#sessions) session.abandon();
    this.#replication?.abandon();
    this.table.close();
    this.#takenOver.resolve();
  }

  /** @param touched Whether the other server may have begun to make the memory agree with the users. */
  #goOn(touched: boolean): void {
    try {
      if (touched) {
        claimListener(this.#entrance.listener);
        this.table.finishRecovery();
      }
    } catch (error) {
      log.error("Failed to check the channels after a hand-over: {reason}", {
        reason: (error as Error).message,
      });
    }
    this.#replication?.resume();
    this.#channels?.resume();
    for (const session of this.#sessions) session.resume();
    this.#entrance.resume();
    this.#housekeeping.resume();
  }

  /**
   * Stops serving. Where a shadow has the state, everything stays for the next server; otherwise all memory and
   * message buffers are removed.
   *
   * @param forget Whether to remove everything all the same, in the shadows too. Default: false.
   */
  async stop(forget = false): Promise<void> {
    await this.#handOver;
    await (this.#stopped ??= this.#stop(forget));
  }

  async #stop(forget: boolean): Promise<void> {
    this.#release?.[Symbol.dispose]();
    this.#entrance.close();
    this.#housekeeping.suspend();
    this.loop[Symbol.dispose]();
    this.#channels?.close();
    for (const session of this.#sessions) session.abandon();
    const kept = this.keepsState && !forget;
    if (forget) this.#forget();
    await this.#replication?.close();
    if (kept) this.table.close();
    else this.table.removeAll();
  }

  #forget(): void {
    this.table.announceEnd();
    for (const { label, connected } of this.#replication?.shadows ?? []) {
      if (!connected) {
        log.warn("Failed to remove the state from the {label} shadow: it is not connected", { label });
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Whether a client is handed over. Another one is left to connect again, and finds all that it has. */
function mayGoOver({ name, state }: HandedClient): boolean {
  if (!isTooMuch(state)) return true;
  log.warning("Client {name} has to connect again: too much of it is under way to be handed over", { name });
  return false;
}

async function startInstead(
  { step, reason }: Refusal,
  options: ServerOptions,
  socket: string,
): Promise<Server> {
  if (step === "fail") throw new TakeoverError(socket, reason);
  log.info("Starting without taking over: {reason}", { reason });
  try {
    return await Server.start(options);
  } catch (error) {
    const inUse = error instanceof SystemError && error.code === "EADDRINUSE";
    throw inUse ? new TakeoverError(socket, reason) : error;
  }
}
