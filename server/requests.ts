/** The requests of clients, and what they are answered with (specification, section 2). */

import { getLogger } from "@logtape/logtape";
import { SystemError } from "../ffi/errno.ts";
import type { Fd } from "../ffi/fd.ts";
import type { InitRequest, Request } from "../proto/subspace_pb.ts";
import { ProtocolError } from "../wire/connection.ts";
import { Refusals } from "../wire/refusals.ts";
import type { Answer } from "./answer.ts";
import type { ChannelTable } from "./channel_table.ts";
import { getClientBuffers, registerClientBuffer, unregisterClientBuffer } from "./client_buffers.ts";
import { getChannelInfo, getChannelStats } from "./introspection.ts";
import { createPublisher } from "./publisher_requests.ts";
import { removePublisher, removeSubscriber } from "./removal.ts";
import { RequestError } from "./request_error.ts";
import { createSubscriber, getTriggers } from "./subscriber_requests.ts";
import type { Client } from "./users.ts";

const log = getLogger(["subspace", "server"]);

/**
 * Does what a client asks for.
 *
 * @param fds What came with the request. Those that are kept are taken out of the list.
 * @param refusals Counts what is not granted.
 * @returns null where the request has no response.
 * @throws {ProtocolError} If it is no request: the connection cannot go on.
 */
export function answer(
  table: ChannelTable,
  client: Client,
  request: Request,
  fds: Fd[],
  refusals = new Refusals(),
): Answer | null {
  try {
    return grant(table, client, request, fds);
  } catch (error) {
    if (error instanceof ProtocolError) throw error;
    refusals.count(isWantOfFds(error) ? "fds" : "request", table.host.monotonicNs());
    return refuse(request, error);
  }
}

function grant(table: ChannelTable, client: Client, { request }: Request, fds: Fd[]): Answer | null {
  switch (request.case) {
    case "init":
      return init(table, client, request.value);
    case "createPublisher":
      return createPublisher(table, client, request.value);
    case "createSubscriber":
      return createSubscriber(table, client, request.value);
    case "getTriggers":
      return getTriggers(table, request.value);
    case "removePublisher":
      return removePublisher(table, client, request.value);
    case "removeSubscriber":
      return removeSubscriber(table, client, request.value);
    case "getChannelInfo":
      return getChannelInfo(table, request.value);
    case "getChannelStats":
      return getChannelStats(table, request.value);
    case "registerClientBuffer":
      return registerClientBuffer(table, client, request.value, fds);
    case "unregisterClientBuffer":
      unregisterClientBuffer(table, client, request.value);
      return null;
    case "getClientBuffers":
      return getClientBuffers(table, request.value);
    case "removeUnclaimed":
      table.removeUnclaimed(client);
      return null;
    default:
      throw new ProtocolError("Protocol error: unknown request");
  }
}

function isWantOfFds(error: unknown): boolean {
  return error instanceof SystemError && (error.code === "EMFILE" || error.code === "ENFILE");
}

/** An error as a response. What is no refusal but a failure of this machine is logged too. */
function refuse({ request }: Request, error: unknown): Answer | null {
  const text = error instanceof Error ? error.message : String(error);
  const refusal = error instanceof RequestError;
  if (!refusal || request.case === "registerClientBuffer" || request.case === "unregisterClientBuffer") {
    if (refusal) log.error("{reason}", { reason: text });
    else log.error("Failed to answer {request}: {reason}", { request: request.case, reason: text });
  }
  const value = { error: refusal ? text : `INTERNAL: ${text}` };
  switch (request.case) {
    case "unregisterClientBuffer":
    case "removeUnclaimed":
      return null;
    case "init":
    case undefined:
      throw new ProtocolError(text);
    default:
      return { response: { case: request.case, value }, fds: [] };
  }
}

function init(
  table: ChannelTable,
  client: Client,
  { clientName, wantExtensions, clientToken }: InitRequest,
): Answer {
  client.name = clientName;
  client.token = clientToken;
  const { userId, groupId } = table.host;
  const sessionId = BigInt.asIntN(64, table.sessionId);
  const extensions = wantExtensions ? { extensions: { registersAlways: true, removesUnclaimed: true } } : {};
  const value = { scbFdIndex: 0, sessionId, userId, groupId, ...extensions };
  return { response: { case: "init", value }, fds: [table.scb] };
}
