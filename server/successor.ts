/** Taking over from a running server (docs/extensions.md). */

import { SystemError } from "../ffi/errno.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { uid } from "../ffi/process.ts";
import type { System } from "../ffi/system.ts";
import { claimListener } from "../ffi/unix_socket.ts";
import type {
  HandOverClient,
  HandOverConnection,
  HandOverServer,
  HandOverShadow,
} from "../proto/subspace_pb.ts";
import { AccessPolicy, type Peer, peerText } from "../wire/access.ts";
import { responseCodec, sendRequest } from "../wire/client_link.ts";
import { Connection, ProtocolError } from "../wire/connection.ts";
import { checkFds, connectionOf, countsOf, handOverCodec, sendPart, tokensOf } from "../wire/hand_over.ts";
import { peerOf } from "../wire/peer.ts";
import type { RefusalReason } from "../wire/refusals.ts";
import { closeDump, receiveDump, type StateDump } from "../wire/state_dump.ts";
import type { ChannelTable } from "./channel_table.ts";
import { ServerCounters } from "./counters.ts";
import type { Host } from "./host.ts";
import { JOURNAL_CHANGES_MAX } from "./journal.ts";
import type { ServerLimits } from "./limits.ts";
import { linksTo, rebuild, type ShadowNames } from "./recovery.ts";
import type { SyncReason } from "./replication.ts";
import { awaitRelease } from "./release.ts";
import { Replicator } from "./replicator.ts";
import { clientConnection } from "./session.ts";
import type { InheritedLink, Offer, ShadowLink, ShadowPatience } from "./shadow_link.ts";
import { type Refusal, Successor } from "./takeover.ts";
import { Client } from "./users.ts";

/** How a server takes over. */
export interface TakeoverOptions {
  readonly socket: string;
  readonly shadows: ShadowNames;
  readonly shadowPatience: ShadowPatience;
  readonly limits: ServerLimits;
  /** How long the running server may take. */
  readonly patienceMs: number;
  readonly host: Host;
  readonly system: System;
}

/** All that the other server had. What is connected is suspended still, and goes on without asking for anything. */
export interface Inheritance {
  readonly table: ChannelTable;
  readonly listener: Fd;
  readonly clients: readonly {
    readonly peer: Peer;
    readonly client: Client;
    readonly connection: Connection;
  }[];
  readonly replication: Replicator | null;
  /** For each of the replication's links. */
  readonly offers: readonly (Offer | null)[];
  readonly counters: ServerCounters;
  /** Of the other server. */
  readonly pid: number;
}

/** What came of an attempt: this process is the server now, or it is not, and this is what to do instead. */
export type TakeoverOutcome<Heir> =
  | { readonly step: "serve"; readonly heir: Heir; /** See `awaitRelease`. */ readonly release: Disposable }
  | Refusal;

/**
 * Asks the server on a socket for all that it has. Resolves in any case.
 *
 * @param prepare Makes what serves with it. Whatever can fail has to be done there, while the other server may still go
 * on: it is disposed of then.
 */
export async function takeOver<Heir extends Disposable>(
  options: TakeoverOptions,
  prepare: (inheritance: Inheritance) => Heir,
): Promise<TakeoverOutcome<Heir>> {
  const { socket, patienceMs, system } = options, machine = new Successor();
  let connection: Connection;
  try {
    connection = new Connection(system.connect(socket), {}, system);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    return { step: error.code === "ECONNREFUSED" ? "start" : "fail", reason: error.message };
  }
  const peer = peerOf(system, connection.socket);
  // Whatever it hands over is believed, and its memory used.
  if (!new AccessPolicy(uid()).admits(peer)) {
    connection.close();
    return { step: "fail", reason: `it runs as another user (${peerText(peer)})` };
  }
  let late: Refusal | null = null;
  const cancel = system.after(patienceMs, () => {
    late = machine.timeUp();
    connection.close();
  });
  using estate = new IncomingEstate(options);
  estate.add(connection);
  try {
    const refusal = await ask(connection);
    if (refusal !== "") return { step: "fail", reason: refusal };
    machine.granted();
    const { value, tokens: fds } = await estate.receive(connection);
    using baton = fds[0], fence = fds[1];
    const tokens = tokensOf(baton, fence);
    const inheritance = estate.build(value, peer.pid), heir = estate.add(prepare(inheritance));
    // Everything is open that is to be kept.
    options.host.checkRoomFor(fence, "serve in its place");
    let refused = machine.complete(tokens);
    if (refused !== null) return refused;
    inheritance.table.finishRecovery();
    claimListener(inheritance.listener);
    refused = machine.prepared(tokens);
    if (refused !== null) return refused;
    // From here on there is no other server: nothing below can fail.
    sendPart(connection, { case: "taken", value: {} });
    estate.keep();
    const former = { pid: peer.pid, standalone: value.standalone };
    return { step: "serve", heir, release: awaitRelease(connection, former, patienceMs, system) };
  } catch (error) {
    if (late !== null) return late;
    if (connection.closed) return machine.ended(connection.failure?.message ?? null);
    return { step: "fail", reason: (error as Error).message };
  } finally {
    cancel();
  }
}

/** Returns why the running server refuses; empty if it does not. */
async function ask(connection: Connection): Promise<string> {
  sendRequest(connection, { request: { case: "takeOver", value: {} } });
  const incoming = await connection.receive(responseCodec);
  if (incoming === null) throw new ProtocolError("Cannot take over: the connection was closed");
  closeAll(incoming.fds);
  const { response } = incoming.message;
  if (response.case === "takeOver") return response.value.error;
  throw new ProtocolError(
    `Cannot accept ${response.case ?? "an unknown response"}: it was asked to hand over`,
  );
}

/** What arrives of the other server's, closed again unless it is kept. */
class IncomingEstate implements Disposable {
  readonly #owned = new DisposableStack();
  readonly #clients: {
    readonly part: HandOverClient;
    readonly peer: Peer;
    readonly connection: Connection;
  }[] = [];
  readonly #links: ShadowLink[];
  /** What each of the links goes on with. */
  readonly #handed = new Map<ShadowLink, InheritedLink>();
  #dump: StateDump | null = null;
  #listener: Fd | null = null;

  constructor(private readonly options: TakeoverOptions) {
    this.#links = linksTo(options.shadows, options.shadowPatience, options.system);
    for (const link of this.#links) this.#owned.defer(() => link.abandon());
  }

  /** Receives everything, up to the tokens. */
  async receive(connection: Connection): Promise<{ value: HandOverServer; tokens: Fd[] }> {
    const dump = this.#dump = await receiveDump(connection);
    this.#owned.defer(() => this.#dump === null || closeDump(dump));
    while (true) {
      const incoming = await connection.receive(handOverCodec);
      if (incoming === null) throw new ProtocolError("Cannot take over: the connection was closed");
      checkFds(incoming);
      const { message: { part }, fds } = incoming;
      switch (part.case) {
        case "client":
          this.#addClient(part.value, fds);
          break;
        case "shadow":
          this.#addShadow(part.value, fds);
          break;
        case "server": {
          const [listener, ...tokens] = fds;
          this.#listener = this.#owned.use(listener);
          return { value: part.value, tokens };
        }
        default:
          closeAll(fds);
          throw new ProtocolError(`Cannot accept ${part.case ?? "an unknown part"} of a hand-over`);
      }
    }
  }

  #addClient(part: HandOverClient, fds: Fd[]): void {
    if (part.connection === undefined) {
      throw new ProtocolError("Cannot accept a client without its connection");
    }
    const { limits, system } = this.options, { socket, state } = connectionOf(part.connection, fds);
    const connection = this.add(clientConnection(socket, limits, system, state));
    this.#clients.push({ part, peer: peerOf(system, socket), connection });
  }

  #addShadow(part: HandOverShadow, fds: Fd[]): void {
    const { socket: name, resumable, syncPartial, syncFull, lastFullSync, connection } = part;
    const link = this.#links.find(({ socket }) => socket === name);
    // This server was started with other shadows.
    if (link === undefined || this.#handed.has(link)) return closeAll(fds);
    this.#handed.set(link, {
      syncPartial: Number(syncPartial),
      syncFull: new Map(countsOf(syncFull) as [SyncReason, number][]),
      lastFullSync: (lastFullSync || null) as SyncReason | null,
      connection: connection === undefined ? null : this.#shadowConnection(connection, fds),
      resumable,
    });
  }

  #shadowConnection(part: HandOverConnection, fds: Fd[]): Connection {
    const { socket, state } = connectionOf(part, fds);
    return this.add(new Connection(socket, {}, this.options.system, state));
  }

  /** Makes of it what a server is made of. Changes no memory that is shared with anybody. */
  build(value: HandOverServer, pid: number): Inheritance {
    const { host, shadows, socket } = this.options, dump = this.#dump!;
    this.#dump = null;
    const table = this.#owned.use(rebuild(dump, host, { multiplexers: value.multiplexers }));
    table.addLeftovers({
      unsettled: value.unsettled,
      leftChannels: value.leftChannels,
      multiplexers: value.multiplexers,
    });
    table.orphansReaped = Number(value.orphansReaped);
    const clients = this.#clients.map(({ part: { name, clientToken, users }, peer, connection }) => {
      const client = new Client(peer.pid);
      client.name = name;
      client.token = clientToken;
      for (const { channelName, id, processId } of users) {
        if (table.reattach(client, channelName, id, processId)) continue;
        throw new Error(`Cannot find user ${id} of client ${name} on channel ${channelName}`);
      }
      return { peer, client, connection };
    });
    const offset = Number(value.offset), generation = value.generation || host.monotonicNs();
    const offers = this.#links.map((link) => {
      const handed = this.#handed.get(link);
      return handed === undefined ? null : link.inherit(handed, generation, offset);
    });
    const changesMax = shadows.journalChangesMax ?? JOURNAL_CHANGES_MAX;
    const replication = this.#links.length === 0
      ? null
      : new Replicator(this.#links, generation, table, changesMax, socket, offset);
    return {
      table,
      listener: this.#listener!,
      clients,
      replication,
      offers,
      counters: countersOf(value),
      pid,
    };
  }

  /** Disposes of something too unless all is kept. */
  add<Value extends Disposable>(value: Value): Value {
    return this.#owned.use(value);
  }

  /** Leaves all of it to whoever has the inheritance. */
  keep(): void {
    this.#owned.move();
  }

  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

function countersOf(value: HandOverServer): ServerCounters {
  const counters = new ServerCounters();
  counters.accepted = Number(value.accepted);
  counters.connectionsPeak = Number(value.connectionsPeak);
  counters.pauses = Number(value.pauses);
  for (const [kind, count] of countsOf(value.requests)) counters.requested(kind, count);
  for (const [reason, count] of countsOf(value.refusals)) {
    counters.refusals.add(reason as RefusalReason, count);
  }
  return counters;
}
