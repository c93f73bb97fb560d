/** The message buffers that publishers make in /dev/shm, and that the server removes with their channel (section 4.8). */

import type { ClientBufferHandleMetadataProto } from "../proto/subspace_pb.ts";
import { bufferName, splitObjectName, type SplitPart, splitPath } from "../shm/buffer_names.ts";
import type { Host } from "./host.ts";
import type { PhysicalChannel } from "./physical_channel.ts";

/** What is left of a channel's name in the names of its message buffers. */
export function bufferStem(channelName: string): string {
  return channelName.replaceAll("/", ".");
}

/**
 * Removes all message buffers of a channel.
 *
 * A publisher makes a buffer before it announces it: one that died in between has left one more than the control
 * block counts.
 */
export function removeMessageBuffers(host: Host, sessionId: bigint, physical: PhysicalChannel): void {
  const { name, splitBuffers } = physical, announced = physical.blocks.numBuffers;
  const nameable = !name.includes("\0"); // no file has such a name
  if (nameable && splitBuffers?.useSplitBuffers) {
    for (let i = 0; removeSplitBuffer(host, sessionId, physical, i) || i < announced; i++);
  }
  for (const { metadata } of physical.clientBuffers.values()) removePart(host, sessionId, name, metadata);
  if (!nameable) return;
  for (let i = 0; host.removeSharedMemory(bufferName(sessionId, name, i)) || i < announced; i++);
}

/**
 * Removes a split buffer, be its parts registered or not. They are made in order: after the first that is not there
 * are no more.
 *
 * @returns Whether there was anything.
 */
function removeSplitBuffer(host: Host, sessionId: bigint, physical: PhysicalChannel, index: number): boolean {
  const remove = (part: SplitPart) => {
    const path = splitPath(sessionId, physical.name, index, part);
    const file = host.removeFile(path);
    return host.removeSharedMemory(splitObjectName(path)) || file;
  };
  const any = remove("prefix");
  for (let slot = 0; slot < physical.layout.numSlots && remove({ slot }); slot++);
  return any;
}

/**
 * Removes a part of a split buffer: its memory, and the file that describes it.
 *
 * The names are what a client said. Only those that the rules of split buffers can give are believed, so that nobody
 * makes the server remove anything else.
 */
function removePart(
  host: Host,
  sessionId: bigint,
  name: string,
  { bufferIndex, slotId, isPrefix, objectName, shadowFile }: ClientBufferHandleMetadataProto,
): void {
  if (/^\/?subspace_[^/\0]+$/.test(objectName)) host.removeSharedMemory(objectName.replace("/", ""));
  const path = splitPath(sessionId, name, bufferIndex, isPrefix ? "prefix" : { slot: slotId });
  if (shadowFile === path && !name.includes("\0")) host.removeFile(path);
}
