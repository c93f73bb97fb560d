/** The message buffers that publishers make in /dev/shm, and that the server removes with their channel (section 4.8). */

import type { Host } from "./host.ts";
import type { PhysicalChannel } from "./physical_channel.ts";

/** The name of a message buffer in /dev/shm. */
export function bufferName(sessionId: bigint, channelName: string, index: number): string {
  return `subspace_${sessionId}_${channelName.replaceAll("/", ".")}_${index}`;
}

/**
 * Removes all message buffers of a channel.
 *
 * A publisher makes a buffer before it announces it: one that died in between has left one more than the control
 * block counts.
 */
export function removeMessageBuffers(host: Host, sessionId: bigint, physical: PhysicalChannel): void {
  removeSplitBuffers(host, sessionId, physical);
  if (physical.name.includes("\0")) return;
  const announced = physical.blocks.numBuffers;
  for (let i = 0; host.removeSharedMemory(bufferName(sessionId, physical.name, i)) || i < announced; i++);
}

/**
 * Removes what publishers have registered: shared memory objects and the files that describe them.
 *
 * The names are what a client said. Only names that the rules of split buffers can give are believed, so that
 * nobody makes the server remove anything else.
 */
function removeSplitBuffers(host: Host, sessionId: bigint, physical: PhysicalChannel): void {
  for (const { metadata } of physical.clientBuffers.values()) {
    if (/^\/?subspace_[^/\0]+$/.test(metadata.objectName)) {
      host.removeSharedMemory(metadata.objectName.replace("/", ""));
    }
    const file = metadata.shadowFile;
    if (file.startsWith(`/tmp/subspace_${sessionId}_`) && /^\/tmp\/[^/\0]+$/.test(file)) {
      host.removeFile(file);
    }
  }
}
