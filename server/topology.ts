/** Which channel a request is about: an existing one, or one to be made (specification, sections 2.3, 2.4, 2.12). */

import { Limit } from "../shm/layout.ts";
import type { Channel } from "./channel.ts";
import type { ChannelTable } from "./channel_table.ts";
import type { ChannelShape } from "./traits.ts";
import type { PhysicalChannel } from "./physical_channel.ts";
import { RequestError, requestError } from "./request_error.ts";
import type { User } from "./users.ts";

/** What a client calls a channel. */
export interface Address {
  readonly channelName: string;
  /** The multiplexer; empty for none. */
  readonly mux: string;
  /** For a new virtual channel; -1 for any. */
  readonly vchanId: number;
}

/** What exists of the channel that a request is about. */
export interface Target {
  readonly channel: Channel | null;
  /** Its memory, or that of its multiplexer. */
  readonly physical: PhysicalChannel | null;
  /** The id that a new virtual channel will have. */
  readonly vchanId: number;
}

/** Looks a channel up. Where it does not exist: checks whether it can be made. */
export function findTarget(table: ChannelTable, address: Address, kind: User["kind"]): Target {
  const { channelName, mux } = address;
  const channel = table.find(channelName) ?? null;
  if (channel !== null) return { channel, physical: channel.physical, vchanId: channel.vchanId };
  if (mux === "" || !table.find(mux)) {
    if (table.full) {
      throw requestError("INTERNAL", `No capacity for another ${mux === "" ? "channel" : "mux"}`);
    }
    if (mux !== "" && mux === channelName) throw notVirtual(channelName, kind);
    checkNamesake(table, mux || channelName);
    return { channel, physical: null, vchanId: mux === "" ? -1 : checkVchanId(null, address.vchanId) };
  }
  const multiplexer = table.find(mux)!;
  if (!multiplexer.isMultiplexer) throw requestError("INTERNAL", `Channel ${mux} is not a multiplexer`);
  return {
    channel,
    physical: multiplexer.physical,
    vchanId: checkVchanId(multiplexer.physical, address.vchanId),
  };
}

/** Two channels that kept their messages in the same files would destroy each other's (section 9.2, 13). */
function checkNamesake(table: ChannelTable, name: string): void {
  const namesake = table.findNamesake(name);
  if (namesake === undefined) return;
  throw requestError(
    "INTERNAL",
    `Cannot create channel ${name}: its message buffers would have the names of those of channel ${namesake}; ` +
      "choose a name that differs in more than / and .",
  );
}

function checkVchanId(physical: PhysicalChannel | null, wanted: number): number {
  if (wanted !== -1 && physical?.virtualChannels?.has(wanted)) {
    throw requestError("INTERNAL", `Virtual channel ${wanted} already exists`);
  }
  const id = wanted === -1 ? physical?.proposeVchanId() ?? 0 : wanted;
  if (id < 0 || id >= Limit.virtualChannels) {
    throw requestError(
      "INTERNAL",
      `Virtual channel id ${id} is beyond max virtual channels (${Limit.virtualChannels})`,
    );
  }
  return id;
}

/** Checks that a channel is virtual if, and only if, its user says so, and on the same multiplexer. */
export function checkVirtuality(channel: Channel | null, address: Address, kind: User["kind"]): void {
  if (channel === null) return;
  const { channelName, mux } = address;
  if (mux === "" && channel.isVirtual) {
    throw new RequestError(
      `Channel ${channelName} is virtual, but no multiplexer was specified for the ${kind}`,
    );
  }
  if (mux !== "" && !channel.isVirtual) throw notVirtual(channelName, kind);
  if (channel.isVirtual && channel.physical.name !== mux) {
    throw new RequestError(
      `Virtual channels with the same name must use the same multiplexer channel;channel ${channelName} is ` +
        `multiplexer ${channel.physical.name}, not ${mux}`,
    );
  }
}

function notVirtual(channelName: string, kind: User["kind"]): RequestError {
  return new RequestError(
    `Channel ${channelName} is not virtual, but a multiplexer was specified for the ${kind}`,
  );
}

/** Whether two names of types are the same, byte by byte. */
export function sameType(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Checks that a user means the type that a channel has, where both name one. */
export function checkType(channelName: string, known: Uint8Array, type: Uint8Array): void {
  if (type.length === 0 || known.length === 0) return;
  if (sameType(known, type)) return;
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  throw new RequestError(
    `Inconsistent channel types for channel ${channelName}: type has been set as ${text(known)}, not ${
      text(type)
    }\n`,
  );
}

/** Makes what is missing of a channel: its multiplexer, itself. */
export function makeChannel(
  table: ChannelTable,
  address: Address,
  target: Target,
  shape: ChannelShape,
): Channel {
  if (target.channel !== null) return target.channel;
  const { channelName, mux } = address;
  if (mux === "") return table.createChannel(channelName, false, shape);
  const physical = target.physical ?? table.createChannel(mux, true, shape).physical;
  return table.createVirtualChannel(channelName, physical, target.vchanId);
}
