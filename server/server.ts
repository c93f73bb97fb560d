/** A subspace server: listens, recovers what its shadows kept, and serves clients (specification, section 3.2). */

import { getLogger } from "@logtape/logtape";
import type { Fd } from "../ffi/fd.ts";
import { LoopMonitor } from "../ffi/loop_monitor.ts";
import { hostName, uid } from "../ffi/process.ts";
import { Ready, type Watch } from "../ffi/reactor.ts";
import { operatingSystem, type System, type Timers } from "../ffi/system.ts";
import { AccessPolicy, type AccessRules, type Peer, peerText } from "../wire/access.ts";
import { peerOf } from "../wire/peer.ts";
import { type RefusalReason, unsaidText } from "../wire/refusals.ts";
import { ChannelTable } from "./channel_table.ts";
import { ServerCounters, serverReport } from "./counters.ts";
import { type Host, systemHost } from "./host.ts";
import { defaultServerLimits, type ServerLimits } from "./limits.ts";
import { type ShadowNames, startWithShadows } from "./recovery.ts";
import type { Replication } from "./replication.ts";
import type { ShadowPatience } from "./shadow_link.ts";
import { ServerChannels } from "./server_channels.ts";
import { Session } from "./session.ts";
import { Client } from "./users.ts";

const log = getLogger(["subspace", "server"]);

/** Where a server listens unless told otherwise. */
export const DEFAULT_SOCKET = "/tmp/subspace";

/** How long accepting rests when this process has no fd left. */
const ACCEPT_REST_MS = 100;

/** Options of a server. */
export interface ServerOptions {
  /** Abstract name of the socket to listen on. Default: `/tmp/subspace`. */
  socket?: string;
  /** Socket of the shadow that keeps the state. Default: none. */
  shadowSocket?: string;
  /** Socket of a second shadow. Default: none. */
  secondaryShadowSocket?: string;
  /** Other shadows, and how to recover from them. */
  recovery?: Pick<ShadowNames, "more" | "prefer" | "onFailure">;
  /** Whether the server is only for this machine; shows in its id. Default: false. */
  local?: boolean;
  /** Whether to remove what other sessions left in /dev/shm, if nothing was recovered. Default: false. */
  cleanupFilesystem?: boolean;
  /** Whether it publishes its directory and statistics. Default: true. */
  publishServerChannels?: boolean;
  /** From one statistics message to the next, in milliseconds. Default: 2000. */
  statisticsPeriodMs?: number;
  /** How often to look for orphans whose process has died, in milliseconds. Default: 2000. */
  orphanCheckMs?: number;
  /** Who may connect beside root and the user that this process runs as. Default: nobody. */
  access?: AccessRules;
  /** How much clients may ask for. */
  limits?: Partial<ServerLimits>;
  /** How long it waits for its shadows. */
  shadowPatience?: ShadowPatience;
  /** The machine. Default: this one. */
  host?: Host;
  /** Its sockets and clock. Default: those of this machine. */
  system?: System;
  /** Default: those of the system. */
  timers?: Timers;
}

/** A running server. */
export class Server {
  readonly #sessions = new Set<Session>();
  readonly #access: AccessPolicy;
  readonly #limits: ServerLimits;
  /** What this server did, and what it refused. */
  readonly counters = new ServerCounters();
  readonly #loop: LoopMonitor;
  readonly #watch: Watch;
  readonly #channels: ServerChannels | null;
  #cancelOrphanCheck: () => void = () => {};
  #cancelAcceptRest: () => void = () => {};
  #stopped: Promise<void> | null = null;

  private constructor(
    private readonly listener: Fd,
    /** All state. */
    readonly table: ChannelTable,
    private readonly replication: Replication | null,
    private readonly options: ServerOptions,
    private readonly system: System,
  ) {
    const { timers = system, publishServerChannels = true, statisticsPeriodMs = 2000 } = options;
    this.#access = new AccessPolicy(uid(), options.access);
    this.#limits = { ...defaultServerLimits, ...options.limits };
    table.effects = {
      replicate: (event, fds) => replication?.replicate(event, fds),
      directoryChanged: () => this.#channels?.directoryChanged(),
    };
    this.#channels = publishServerChannels
      ? new ServerChannels(table, {
        serverId: serverId(table.host, system.pid, options),
        client: new Client(system.pid),
        statisticsPeriodMs,
        timers,
      })
      : null;
    this.#checkOrphans(timers);
    this.#watch = system.watch(listener, Ready.readable, () => this.#accept());
    this.#loop = new LoopMonitor(system);
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
    const server = new Server(listener, table, replication, options, system);
    cleanup.move();
    return server;
  }

  /** The id of the session, in the names of all message buffers. */
  get sessionId(): bigint {
    return this.table.sessionId;
  }

  /** Whether a shadow has the state: then it outlives this server, and `stop` leaves everything as it is. */
  get keepsState(): boolean {
    return this.replication?.connected ?? false;
  }

  /** How many clients are connected. */
  get numClients(): number {
    return this.#sessions.size;
  }

  #accept(): void {
    try {
      const next = () => this.system.accept(this.listener);
      for (let socket = next(); socket !== null; socket = next()) this.#welcome(socket);
    } catch (error) {
      // Without an fd left the listener stays readable: rest, and let others close some.
      this.#say("fds", `Failed to accept a client: ${(error as Error).message}`);
      this.#watch.rearm(0);
      this.#cancelAcceptRest = this.system.after(ACCEPT_REST_MS, () => this.#watch.rearm(Ready.readable));
    }
  }

  #welcome(socket: Fd): void {
    const peer = peerOf(this.system, socket);
    const refusal = this.#objection(peer);
    if (refusal === null) {
      const report = () => this.#report();
      this.#serve(
        new Session(this.table, socket, peer.pid, this.#limits, this.counters, report, this.system),
      );
      return;
    }
    socket.close();
    this.#say(refusal.reason, `Refused a client (${peerText(peer)}): ${refusal.text}`);
  }

  #report() {
    const connections = this.#sessions.values().map(({ connection }) => connection);
    return serverReport(this.counters, this.table, this.replication, this.#loop, connections);
  }

  #objection(peer: Peer): { reason: RefusalReason; text: string } | null {
    const { connectionsMax } = this.#limits;
    if (!this.#access.admits(peer)) {
      return { reason: "access", text: "neither --allow_user nor --allow_group names it" };
    }
    if (this.counters.connections < connectionsMax) return null;
    return { reason: "connections", text: `${connectionsMax} clients are connected (--max_connections)` };
  }

  #say(reason: RefusalReason, text: string): void {
    const verdict = this.counters.refusals.count(reason, this.table.host.monotonicNs());
    if (verdict.log) log.error("{text}{unsaid}", { text, unsaid: unsaidText(verdict) });
  }

  async #serve(session: Session): Promise<void> {
    this.#sessions.add(session);
    this.counters.connected();
    try {
      await session.run();
    } catch (error) {
      log.error("Failed to end the session of a client: {reason}", { reason: (error as Error).message });
    }
    this.#sessions.delete(session);
    this.counters.connections--;
  }

  /** Users of processes that died while no server was there. Nobody tells of them: it takes looking. */
  #checkOrphans(timers: Timers): void {
    const removed = this.table.reapOrphans();
    this.counters.orphansReaped += removed;
    if (removed > 0) log.info("Removed {count} users whose process has died", { count: removed });
    this.#cancelOrphanCheck = timers.after(
      this.options.orphanCheckMs ?? 2000,
      () => this.#checkOrphans(timers),
    );
  }

  /**
   * Stops serving. Where a shadow has the state, everything stays for the next server; otherwise all memory and
   * message buffers are removed.
   *
   * @param forget Whether to remove everything all the same, in the shadows too. Default: false.
   */
  stop(forget = false): Promise<void> {
    return this.#stopped ??= this.#stop(forget);
  }

  async #stop(forget: boolean): Promise<void> {
    this.#watch.close();
    this.#cancelAcceptRest();
    this.listener.close();
    this.#cancelOrphanCheck();
    this.#loop[Symbol.dispose]();
    this.#channels?.close();
    for (const session of this.#sessions) session.abandon();
    const kept = this.keepsState && !forget;
    if (forget) this.#forget();
    await this.replication?.close();
    if (kept) this.table.close();
    else this.table.removeAll();
  }

  #forget(): void {
    this.table.announceEnd();
    for (const { label, connected } of this.replication?.shadows ?? []) {
      if (!connected) {
        log.warn("Failed to remove the state from the {label} shadow: it is not connected", { label });
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

async function begin(
  { socket = DEFAULT_SOCKET, shadowSocket, secondaryShadowSocket, recovery, shadowPatience }: ServerOptions,
  host: Host,
  system: System,
): Promise<{ table: ChannelTable; replication: Replication | null }> {
  if (!shadowSocket && !secondaryShadowSocket) {
    return { table: ChannelTable.create(host), replication: null };
  }
  return await startWithShadows(
    { ...recovery, primary: shadowSocket, secondary: secondaryShadowSocket, serverSocket: socket },
    host,
    shadowPatience,
    system,
  );
}

/** Removes all message buffers of the machine: for one that runs no other server. */
function cleanupFilesystem(host: Host): void {
  log.info("Cleaning up filesystem...");
  for (const name of host.listSharedMemory()) if (name.startsWith("subspace_")) host.removeSharedMemory(name);
}

/** Tells this run of this server from all others, also where the session goes on (specification, section 6). */
function serverId(
  host: Host,
  pid: number,
  { socket = DEFAULT_SOCKET, local = false }: ServerOptions,
): string {
  return `${local ? "local" : hostName()}.${socket}.${pid}.${host.monotonicNs()}`;
}
