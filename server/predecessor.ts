/** Handing over to a server that goes on in this one's place (docs/extensions.md). */

import { getLogger } from "@logtape/logtape";
import { createEventFd, signal } from "../ffi/eventfd.ts";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { killProcess } from "../ffi/process.ts";
import type { System } from "../ffi/system.ts";
import type { Init } from "../proto/message.ts";
import type { HandOverServer, HandOverUser } from "../proto/subspace_pb.ts";
import { type Connection, ProtocolError } from "../wire/connection.ts";
import { connectionPart, counts, handOverCodec, sendPart, tokensOf } from "../wire/hand_over.ts";
import { sendDump } from "../wire/state_dump.ts";
import type { ChannelTable } from "./channel_table.ts";
import type { ServerCounters } from "./counters.ts";
import type { HandedLink, HandedReplication } from "./replication.ts";
import type { HandedClient } from "./session.ts";
import { Predecessor, type PredecessorStep } from "./takeover.ts";

const log = getLogger(["subspace", "server"]);

/** What may be on the way to the new server before the rest waits. */
const AHEAD_BYTES = 256 * 1024, AHEAD_FDS = 1024;

/** All that a server has. Nothing of it changes while it is handed over. */
export interface Estate {
  readonly table: ChannelTable;
  readonly listener: Fd;
  readonly clients: readonly HandedClient[];
  readonly replication: HandedReplication | null;
  readonly counters: ServerCounters;
  /** As in `ServerOptions`. */
  readonly standalone: boolean;
}

/** How a hand-over ended. */
export type HandOverResult =
  /** The other one serves. */
  | { readonly done: true }
  /** It does not, and never will. `touched`: it was about to, and may have begun to. */
  | { readonly done: false; readonly reason: string; readonly touched: boolean };

/**
 * Hands everything over. Resolves when it is certain who of the two serves: in any case, unless the other process is
 * stopped and may not be killed from here.
 *
 * @param connection To the new server, which has asked for it. It is closed afterwards.
 * @param pid Of the new server; 0 where it cannot be seen.
 * @param patienceMs How long the other one may take, and then once more where it stops in the very last steps.
 * @throws {SystemError} If it cannot even begin.
 */
export async function handOver(
  connection: Connection,
  pid: number,
  estate: Estate,
  patienceMs: number,
  system: System,
): Promise<HandOverResult> {
  using baton = createToken();
  using fence = createToken();
  const { promise, resolve } = Promise.withResolvers<HandOverResult>();
  const machine = new Predecessor(tokensOf(baton, fence));
  let cancel: () => void = () => {};
  const follow = (step: PredecessorStep, reason: string) => {
    cancel();
    if (step === "wait" || step === "kill") cancel = system.after(patienceMs, timeUp);
    if (step === "kill" && !killProcess(pid)) {
      log.error("Failed to kill process {pid}, which took over and then stopped: kill it", { pid });
    }
    if (step === "go on") resolve({ done: false, reason, touched: machine.batonLost });
    if (step === "leave") resolve({ done: true });
  };
  const hear = () => {
    const answer = connection.tryReceive(handOverCodec);
    if (answer?.message.part.case === "taken") {
      follow(machine.acknowledged(), "it said that it served, and did not");
    } else if (answer !== null) {
      closeAll(answer.fds);
      connection.close(new ProtocolError("Cannot accept that: a hand-over is on its way"));
    } else if (connection.closed) {
      follow(machine.ended(), connection.failure?.message ?? "it has ended");
    }
  };
  const timeUp = () => {
    // Whoever was stopped itself finds what came meanwhile behind the time that is up.
    hear();
    if (machine.phase === "over") return;
    follow(machine.timeUp(), `it was not ready within ${patienceMs} ms (--takeover_timeout)`);
    if (machine.phase === "overdue") log.warning("Process {pid} took over, and does not go on", { pid });
  };
  connection.onReadable = hear;
  follow("wait", "");
  hear();
  send(connection, machine, estate, [baton, fence], patienceMs).catch((error) => connection.close(error));
  const result = await promise;
  cancel();
  connection.onReadable = null;
  connection.close();
  return result;
}

function createToken(): Fd {
  const fd = createEventFd();
  signal(fd.number);
  return fd;
}

async function send(
  connection: Connection,
  machine: Predecessor,
  { table, listener, clients, replication, counters, standalone }: Estate,
  tokens: readonly Fd[],
  patienceMs: number,
): Promise<void> {
  const { sessionId, scb } = table;
  const channels = new Map(table.records().map((record) => [record.info.channelName, record]));
  await sendDump(connection, { sessionId, scb, channels }, patienceMs, true);
  for (const { name, token, users, socket, state } of clients) {
    const { connection: part, fds } = connectionPart(socket, state);
    const value = { name, clientToken: token, users: users.map(userPart), connection: part };
    sendPart(connection, { case: "client", value }, fds);
    const { outboundBytes, outboundFds } = connection;
    if (outboundBytes > AHEAD_BYTES || outboundFds > AHEAD_FDS) await connection.drained();
  }
  for (const link of replication?.links ?? []) sendLink(connection, link);
  if (connection.closed) return;
  machine.offered();
  const value = { ...lastPart(table, replication, counters), standalone };
  sendPart(connection, { case: "server", value }, [listener, ...tokens]);
}

function userPart(
  { channelName, id, claimedPid }: { channelName: string; id: number; claimedPid: bigint },
): Init<HandOverUser> {
  return { channelName, id, processId: claimedPid };
}

function sendLink(
  to: Connection,
  { name, syncFull, lastFullSync, syncPartial, connection }: HandedLink,
): void {
  const value = {
    socket: name,
    syncPartial: BigInt(syncPartial),
    syncFull: counts(syncFull),
    lastFullSync: lastFullSync ?? "",
  };
  if (connection === null) return sendPart(to, { case: "shadow", value });
  const { connection: part, fds } = connectionPart(connection.socket, connection.state);
  sendPart(
    to,
    { case: "shadow", value: { ...value, resumable: connection.resumable, connection: part } },
    fds,
  );
}

function lastPart(
  table: ChannelTable,
  replication: HandedReplication | null,
  counters: ServerCounters,
): Init<HandOverServer> {
  const { unsettled, leftChannels, multiplexers } = table.leftovers;
  return {
    generation: replication?.generation ?? 0n,
    offset: BigInt(replication?.offset ?? 0),
    unsettled: [...unsettled],
    leftChannels: [...leftChannels],
    multiplexers: [...multiplexers],
    accepted: BigInt(counters.accepted),
    connectionsPeak: BigInt(counters.connectionsPeak),
    requests: counts(counters.requestsByKind),
    pauses: BigInt(counters.pauses),
    orphansReaped: BigInt(table.orphansReaped),
    refusals: counts(Object.entries(counters.refusals.totals())),
  };
}
