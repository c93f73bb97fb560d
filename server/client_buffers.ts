/** RegisterClientBuffer, UnregisterClientBuffer and GetClientBuffers (specification, sections 2.8 to 2.10). */

import type { Fd } from "../ffi/fd.ts";
import type {
  GetClientBuffersRequest,
  RegisterClientBufferRequest,
  UnregisterClientBufferRequest,
} from "../proto/subspace_pb.ts";
import { Limit } from "../shm/layout.ts";
import { type Answer, FdList } from "./answer.ts";
import type { ChannelTable } from "./channel_table.ts";
import type { PhysicalChannel } from "./physical_channel.ts";
import { RequestError, requestError } from "./request_error.ts";
import type { Client } from "./users.ts";

/**
 * Registers a part of a split buffer.
 *
 * @param fds What came with the request. The one that is kept is taken out of the list.
 */
export function registerClientBuffer(
  table: ChannelTable,
  client: Client,
  request: RegisterClientBufferRequest,
  fds: Fd[],
): Answer {
  const { hasFd, fdIndex } = request;
  const sessionId = request.metadata?.sessionId ?? 0n, channelName = request.metadata?.channelName ?? "";
  if (sessionId !== table.sessionId) {
    throw requestError("INTERNAL", `Ignoring client buffer registration for stale session ${sessionId}`);
  }
  const physical = table.find(channelName)?.physical;
  if (physical === undefined) {
    throw requestError("INTERNAL", `Ignoring client buffer registration for unknown channel ${channelName}`);
  }
  checkPublishes(physical, client, channelName, "registration");
  if (hasFd && (fdIndex < 0 || fdIndex >= fds.length)) {
    throw requestError(
      "INVALID_ARGUMENT",
      `Client buffer registration for channel ${channelName} claims an fd but has an invalid fd index ${fdIndex}`,
    );
  }
  const metadata = request.metadata!;
  checkPart(physical, metadata.bufferIndex, metadata.slotId);
  metadata.channelName = physical.name;
  if (hasFd) table.host.checkRoomFor(fds[fdIndex], "keep another part of a buffer");
  table.registerBuffer(physical, { metadata, fd: hasFd ? fds.splice(fdIndex, 1)[0] : null });
  return { response: { case: "registerClientBuffer", value: {} }, fds: [] };
}

/** Only who publishes into a channel's memory says what that memory is. */
function checkPublishes(physical: PhysicalChannel, client: Client, channelName: string, what: string): void {
  for (const user of client.users) {
    if (user.kind === "publisher" && user.channel.physical === physical) return;
  }
  throw requestError(
    "PERMISSION_DENIED",
    `Ignoring client buffer ${what} for channel ${channelName} from a client that does not own a publisher on it`,
  );
}

/** Keeps the number of registrations within what a channel can have. */
function checkPart({ name, layout }: PhysicalChannel, bufferIndex: number, slotId: number): void {
  if (bufferIndex < Limit.buffers && slotId < layout.numSlots) return;
  throw requestError(
    "INVALID_ARGUMENT",
    `Client buffer registration for channel ${name} names buffer ${bufferIndex} and slot ${slotId}: there are at ` +
      `most ${Limit.buffers} buffers of ${layout.numSlots} slots`,
  );
}

/** Forgets a buffer. One way: nobody waits for an answer, so what cannot be done is only thrown to be logged. */
export function unregisterClientBuffer(
  table: ChannelTable,
  client: Client,
  { channelName, sessionId, bufferIndex }: UnregisterClientBufferRequest,
): void {
  const physical = table.find(channelName)?.physical;
  if (sessionId !== table.sessionId || physical === undefined) return;
  checkPublishes(physical, client, channelName, "unregistration");
  table.unregisterBuffer(physical, bufferIndex);
}

/** All registered parts of a buffer. */
export function getClientBuffers(table: ChannelTable, request: GetClientBuffersRequest): Answer {
  const { channelName, sessionId, bufferIndex } = request;
  const physical = table.find(channelName)?.physical;
  if (physical === undefined) throw new RequestError(`Unknown channel ${channelName}`);
  const buffers = [...physical.clientBuffers.values()].filter(({ metadata }) =>
    metadata.sessionId === sessionId && metadata.bufferIndex === bufferIndex
  );
  const fds = new FdList();
  const value = {
    metadata: buffers.map(({ metadata }) => metadata),
    fdIndexes: buffers.map(({ fd }) => fd === null ? -1 : fds.add(fd)),
  };
  return { response: { case: "getClientBuffers", value }, fds: fds.fds };
}
