/** What the verbs have in common that follow a channel. */

import { askShadow } from "../../inspect/asking.ts";
import { ChannelFollower } from "../../inspect/follower.ts";
import { deadlineIn, InspectError } from "../../inspect/link.ts";
import { typeText } from "../../inspect/naming.ts";
import type { MessageSource } from "../../inspect/observer.ts";
import { look, type ServerSight, type ShadowSight } from "../../inspect/sight.ts";
import type { ShadowCreateChannel } from "../../proto/subspace_pb.ts";
import { readControlBlock } from "../../shm/inspection.ts";
import { writeError } from "../output.ts";
import { type StopSignal, stopSignal } from "../stopping.ts";
import { Pause } from "./pause.ts";
import { missingChannel, unknownChannel } from "./channel.ts";
import type { InspectFlags } from "./flags.ts";

/** How soon memory is looked at again: while messages come, and while there are none. */
const LOOK_SOON_MS = 1;
const LOOK_EVERY_MS = 5;
/** Damage often comes in hundreds. */
const DAMAGE_NAMED_MAX = 3;

/** A channel that is followed. */
export interface Followed extends Disposable {
  readonly source: MessageSource;
  /** The type of its messages; empty where it has none. */
  readonly type: string;
  /** What is known of it by now. */
  facts(): ChannelFacts;
  /** Looks whether its memory is another by now. To be called with each look: it costs little. */
  refresh(): Promise<void>;
}

/** What it takes to make a channel like another one. */
export interface ChannelFacts {
  readonly name: string;
  readonly numSlots: number;
  readonly reliable: boolean;
  readonly checksumBytes: number;
  readonly metadataBytes: number;
  readonly mux: string;
  readonly vchanId: number;
  readonly type: Uint8Array<ArrayBuffer>;
}

/** Follows a channel: in memory through a shadow, or as an unreliable subscriber where `--socket` is a server. */
export async function follow(flags: InspectFlags, channel: string): Promise<Followed> {
  const { socket, timeout } = flags;
  const sight = await look(socket, { timeoutMs: timeout });
  if (sight.kind === "server") return await subscribe(sight, channel);
  if (flags.subscribe) {
    sight[Symbol.dispose]();
    const server = await look(await serverOf(flags), { timeoutMs: timeout });
    if (server.kind === "server") return await subscribe(server, channel);
    server[Symbol.dispose]();
    throw new InspectError(
      `Cannot subscribe to ${channel}: ${server.source.socket} is a shadow; name a server with --server`,
    );
  }
  try {
    return followIn(sight, channel, timeout);
  } catch (error) {
    sight[Symbol.dispose]();
    throw error;
  }
}

/** The server to subscribe at: the one that a shadow of ours names, or else `--server`. */
async function serverOf({ socket, server, timeout }: InspectFlags): Promise<string> {
  const told = await askShadow(socket, deadlineIn(timeout)).catch(() => null);
  return told?.report.serverSocket || server;
}

function followIn(sight: ShadowSight, channel: string, timeoutMs: number): Followed {
  const record = sight.dump.channels.get(channel);
  if (record === undefined) throw missingChannel(channel, sight);
  const { problems } = readControlBlock(record.ccb, record.bcb, record.info.numSlots);
  if (problems.length > 0) {
    const named = problems.slice(0, DAMAGE_NAMED_MAX).join(", ");
    writeError(`${channel} is damaged (${named}): messages may go unseen\n`);
  }
  const source = new ChannelFollower(sight, channel, timeoutMs);
  if (!source.active) writeError(`${channel} has had no publisher yet: waiting for one\n`);
  return {
    source,
    facts: () => factsOf((source.record ?? record).info),
    type: typeText(record.info.type),
    refresh: () => source.refresh(),
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

function factsOf(info: ShadowCreateChannel): ChannelFacts {
  return {
    name: info.channelName,
    numSlots: info.numSlots,
    reliable: info.isReliable,
    checksumBytes: info.checksumSize,
    metadataBytes: Math.max(0, info.metadataSize),
    mux: info.mux,
    vchanId: info.mux === "" ? -1 : info.vchanId,
    type: info.type.slice(),
  };
}

async function subscribe({ source: { socket }, answers }: ServerSight, channel: string): Promise<Followed> {
  const info = answers.channels.find(({ name }) => name === channel);
  if (info === undefined) throw unknownChannel(channel, answers.channels.map(({ name }) => name), socket);
  const { ChannelSubscription } = await import("../../inspect/subscription.ts");
  const source = await ChannelSubscription.open(socket, channel).catch((error) => {
    throw new InspectError(
      `Cannot follow ${channel} as a subscriber: ${error.message}; name a shadow with --socket`,
    );
  });
  const facts: ChannelFacts = {
    name: channel,
    numSlots: info.numSlots,
    reliable: info.isReliable,
    checksumBytes: 4,
    metadataBytes: 0,
    mux: info.mux,
    vchanId: info.isVirtual ? info.vchanId : -1,
    type: info.type.slice(),
  };
  return {
    source,
    facts: () => facts,
    type: typeText(info.type),
    refresh: () => Promise.resolve(),
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

/** What a look found. */
export type Look = "done" | "busy" | "idle";

/**
 * Looks every few milliseconds, until it is done or somebody stops the program.
 *
 * @returns How it was stopped; null where it is done.
 */
export async function repeatedly(
  followed: readonly Followed[],
  look: () => Look,
): Promise<StopSignal | null> {
  const stopping = stopSignal(), pause = new Pause(stopping);
  while (!pause.over) {
    const found = look();
    if (found === "done") return null;
    await pause.wait(found === "busy" ? LOOK_SOON_MS : LOOK_EVERY_MS);
    await Promise.all(followed.map((it) => it.refresh()));
  }
  return await stopping;
}
