/**
 * Asking server and shadow what they say of themselves: extensions of ours (docs/extensions.md).
 *
 * A shadow of ours is told from one of the reference's by its second socket. A server is asked for a channel that
 * cannot be, with a field that only ours know: the reference's says that there is no such channel, and a shadow of the
 * reference's, if that is what listens, takes it for the removal of a subscriber that it does not have.
 */

import { Errno, SystemError } from "../ffi/errno.ts";
import { isWholeName } from "../ffi/unix_socket.ts";
import type { Counter, ServerReport, ShadowEvent, ShadowReport } from "../proto/subspace_pb.ts";
import { responseCodec, sendRequest } from "../wire/client_link.ts";
import { type Connection, ProtocolError } from "../wire/connection.ts";
import { type Position, replicationSocket } from "../wire/position.ts";
import { sendEvent, shadowEventCodec, type ShadowEventInit } from "../wire/shadow_link.ts";
import { receiveHeader } from "../wire/state_dump.ts";
import { connected, type Deadline, next } from "./link.ts";
import type { CounterValue } from "./model.ts";

/** No channel has this name: it is longer than names may be in control blocks, and says what it is for. */
const NO_CHANNEL = "/subspace/report/" + "-".repeat(64);

/** What a server of ours says of itself. */
export interface ServerTold {
  readonly pid: number;
  readonly report: ServerReport;
}

/**
 * Asks a server.
 *
 * @returns null where it is one of the reference's.
 * @throws {Error} If nobody answers as a server does.
 */
export function askServer(socket: string, deadline: Deadline): Promise<ServerTold | null> {
  return connected(socket, deadline, async (connection, { pid }) => {
    const report = await askForReport(connection);
    return report === null ? null : { pid, report };
  });
}

/** Asks what is known to be a server; null where it is one of the reference's. */
export async function askForReport(connection: Connection): Promise<ServerReport | null> {
  const value = { channelName: NO_CHANNEL, wantReport: true };
  sendRequest(connection, { request: { case: "getChannelInfo", value } });
  const { response } = await next(connection, responseCodec);
  if (response.case !== "getChannelInfo") {
    throw new ProtocolError(`it answered ${response.case ?? "nothing"} to getChannelInfo`);
  }
  return response.value.report ?? null;
}

/** What a shadow of ours says of itself. */
export interface ShadowTold {
  readonly pid: number;
  /** 0: none. */
  readonly sessionId: bigint;
  readonly numChannels: number;
  readonly position: Position;
  readonly report: ShadowReport;
}

/**
 * Asks a shadow.
 *
 * @returns null where nobody listens on the second socket: it is none, or one of the reference's.
 * @throws {Error} If nobody answers as a shadow of ours does.
 */
export async function askShadow(socket: string, deadline: Deadline): Promise<ShadowTold | null> {
  return await withShadow(socket, deadline, async (connection, { pid, ...header }) => {
    const report = await question(connection, { event: { case: "requestReport", value: {} } });
    if (report.case !== "report") throw unexpected(report);
    return { pid, ...header, report: report.value };
  });
}

/**
 * Has a shadow do something with what it keeps aside.
 *
 * @returns null where it is none of ours; else why it did not, or an empty text.
 */
export async function commandShadow(
  socket: string,
  what: "rollback" | "forget",
  deadline: Deadline,
): Promise<string | null> {
  return await withShadow(socket, deadline, async (connection) => {
    const answer = await question(connection, { event: { case: what, value: {} } });
    if (answer.case !== "answer") throw unexpected(answer);
    return answer.value.error;
  });
}

/** How far a shadow's copy goes, and who it is. */
export type Header = Awaited<ReturnType<typeof receiveHeader>> & { readonly pid: number };

/**
 * Does something with a connection to a shadow of ours.
 *
 * @returns null where nobody listens on the second socket.
 */
export async function withShadow<T>(
  socket: string,
  deadline: Deadline,
  see: (connection: Connection, header: Header, socket: string) => Promise<T>,
): Promise<T | null> {
  const name = replicationSocket(socket);
  if (!isWholeName(name)) return null;
  try {
    return await connected(name, deadline, async (connection, { pid }) => {
      const header = await receiveHeader(connection);
      return await see(connection, { pid, ...header }, socket);
    });
  } catch (error) {
    if (error instanceof SystemError && error.errno === Errno.ECONNREFUSED) return null;
    throw error;
  }
}

async function question(connection: Connection, event: ShadowEventInit): Promise<ShadowEvent["event"]> {
  sendEvent(connection, event);
  return (await next(connection, shadowEventCodec)).event;
}

function unexpected({ case: kind }: ShadowEvent["event"]): ProtocolError {
  return new ProtocolError(`it answered ${kind ?? "nothing"}, as a shadow of another version`);
}

/** Counters as data. */
export function counterValues(counters: readonly Counter[]): CounterValue[] {
  return counters.map(({ name, label, of, value }) => ({
    name,
    label: label || null,
    of: label === "" ? null : of,
    value: Number(value),
  }));
}
