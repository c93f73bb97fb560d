/** What the two ends of a channel have in common. */

import type { ControlBlocks } from "./control_blocks.ts";
import { Limit } from "./layout.ts";
import type { SplitOptions } from "./split_buffers.ts";

/** Options of both ends of a channel. */
export interface ChannelEndOptions {
  /** The session of the server that made the channel: part of its buffers' names. */
  readonly sessionId: bigint;
  /** The channel's name; the multiplexer's for a virtual channel. */
  readonly resolvedName: string;
  /** Stay the caller's, and must outlive the end. */
  readonly blocks: ControlBlocks;
  /** User id, given by the server. */
  readonly id: number;
  /** Default: -1, no virtual channel. */
  readonly vchanId?: number;
  /** Default: false. */
  readonly reliable?: boolean;
  /** Room for a checksum in each prefix. Default: 4. */
  readonly checksumBytes?: number;
  /** Room for metadata in each prefix. Default: 0. */
  readonly metadataBytes?: number;
  /** How the channel's buffers are split. Default: null, they are of one piece. */
  readonly split?: SplitOptions | null;
}

/** Throws a `RangeError` where ids or sizes are impossible. */
export function checkEnd(options: ChannelEndOptions): void {
  const { id, vchanId = -1, checksumBytes = 4, metadataBytes = 0, blocks, resolvedName } = options;
  const check = (what: string, value: number, from: number, to: number) => {
    if (Number.isInteger(value) && value >= from && value <= to) return;
    throw new RangeError(`Cannot use channel ${resolvedName}: ${what} ${value} is not ${from} to ${to}`);
  };
  check("user id", id, 0, Limit.users - 1);
  check("virtual channel", vchanId, -1, Limit.virtualChannels - 1);
  check("checksum size", checksumBytes, 0, 0xffff);
  check("metadata size", metadataBytes, 0, 0xffff);
  if (blocks.numSlots === 0) {
    throw new RangeError(
      `Cannot use channel ${resolvedName}: it is a placeholder that no publisher has filled in`,
    );
  }
}
