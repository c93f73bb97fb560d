/** The control blocks that a server hands out for a channel. */

import type { Fd } from "../ffi/fd.ts";
import { ControlBlockError, ControlBlocks } from "../shm/control_blocks.ts";
import { Ccb } from "../shm/layout.ts";
import type { AnswerFds } from "./answer.ts";
import type { Control } from "./control.ts";
import { RequestError } from "./errors.ts";
import { sameMemory } from "./session.ts";

/** What an answer says about a channel's control blocks. */
export interface ControlBlockAnswer {
  readonly channelId: number;
  readonly ccbFdIndex: number;
  readonly bcbFdIndex: number;
  /** Whether they are those that the request named. */
  readonly unchanged: boolean;
  readonly subscriberQueueArenaSize: bigint;
}

/** Control blocks mapped already: those of a channel that goes on. */
export interface KnownBlocks {
  readonly channelId: number;
  readonly blocks: ControlBlocks;
}

/** The control blocks that are mapped already, as a request names them; 0 for none. */
export interface MappedFile {
  readonly mappedInode: bigint;
  readonly mappedDevice: bigint;
}

/** @param known null for none. */
export function mappedBy(known: KnownBlocks | null): MappedFile {
  const { inode: mappedInode, device: mappedDevice } = known?.blocks.file ?? { inode: 0n, device: 0n };
  return { mappedInode, mappedDevice };
}

/**
 * Takes the control blocks of an answer.
 *
 * @param numSlots null where the answer does not say it: the control block itself does then.
 * @returns null where they are the ones that are mapped already.
 * @throws {ControlBlockError} If they are not what they should be.
 * @throws {RequestError} If the answer is that they are those mapped already, and there are none any more.
 */
export function takeBlocks(
  control: Control,
  channel: string,
  answer: ControlBlockAnswer,
  numSlots: number | null,
  fds: AnswerFds,
  known: KnownBlocks | null,
): ControlBlocks | null {
  if (answer.unchanged) {
    if (known?.channelId === answer.channelId) return null;
    throw new RequestError(
      `go on with channel ${channel}`,
      "its memory has been let go since it was asked for",
    );
  }
  const ccb = fds.take(answer.ccbFdIndex), bcb = fds.take(answer.bcbFdIndex);
  if (known !== null && known.channelId === answer.channelId && sameMemory(known.blocks.ccbFd, ccb)) {
    ccb.close();
    bcb.close();
    return null;
  }
  const shape = {
    channelName: channel,
    numSlots: numSlots ?? numSlotsOf(ccb, channel),
    queueArenaBytes: Number(answer.subscriberQueueArenaSize),
  };
  return ControlBlocks.attach(shape, control.session.scb.counters(answer.channelId), ccb, bcb);
}

/** A publisher is not told the number of slots, and may have asked for another one than the channel has. */
function numSlotsOf(ccb: Fd, channel: string): number {
  const word = new Int32Array(1);
  if (ccb.readAt(Ccb.numSlots, new Uint8Array(word.buffer)) === word.byteLength) return word[0];
  throw new ControlBlockError(
    `Cannot use the control block of channel ${channel}: it is too short for its header`,
  );
}
