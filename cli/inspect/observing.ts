/** What the verbs have in common that follow a channel. */

import { look, type Sight } from "../../inspect/sight.ts";
import { InspectError } from "../../inspect/link.ts";
import { ChannelObserver } from "../../inspect/observer.ts";
import type { ChannelRecord } from "../../wire/state_dump.ts";
import { stopSignal } from "../stopping.ts";
import { unknownChannel } from "./channel.ts";
import type { InspectFlags } from "./flags.ts";

/** How often memory is looked at. */
const LOOK_EVERY_MS = 5;

/** A channel that is followed. */
export interface Followed extends Disposable {
  readonly observer: ChannelObserver;
  readonly record: ChannelRecord;
}

/** Follows a channel through a shadow. */
export async function follow({ socket, timeout }: InspectFlags, channel: string): Promise<Followed> {
  const sight = await look(socket, { timeoutMs: timeout });
  try {
    return followIn(sight, channel);
  } catch (error) {
    sight[Symbol.dispose]();
    throw error;
  }
}

function followIn(sight: Sight, channel: string): Followed {
  const { socket } = sight.source;
  if (sight.kind === "server") {
    throw new InspectError(
      `Cannot follow ${channel}: ${socket} is a server, and only a shadow hands out memory; name one with --socket`,
    );
  }
  const record = sight.dump.channels.get(channel);
  if (record === undefined) throw unknownChannel(channel, sight.dump.channels.keys(), socket);
  if (record.info.numSlots === 0) {
    throw new InspectError(
      `Cannot follow ${channel}: it has had no publisher yet; try again when there is one`,
    );
  }
  const observer = new ChannelObserver(sight, record);
  const dispose = () => {
    observer[Symbol.dispose]();
    sight[Symbol.dispose]();
  };
  return { observer, record, [Symbol.dispose]: dispose };
}

/** Does something every few milliseconds, until it says that it is done, or somebody stops the program. */
export async function repeatedly(work: () => boolean, everyMs = LOOK_EVERY_MS): Promise<void> {
  let stopped = false;
  const done = stopSignal().then(() => stopped = true);
  while (!stopped && work()) {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await Promise.race([done, new Promise((resolve) => timer = setTimeout(resolve, everyMs))]);
    clearTimeout(timer);
  }
}
