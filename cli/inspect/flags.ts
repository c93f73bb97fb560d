/** The flags of `subspace-inspect`, for all verbs. */

import type { WatchOrder } from "../../inspect/watch.ts";
import { choice, duration, flag, type FlagValues, integer, onOff, text, type ValueType } from "../flags.ts";

/** How messages are shown. */
export type MessageFormat = "hex" | "text" | "json" | "proto";

/** How fast something is replayed. */
const speed: ValueType<number> = {
  placeholder: "FACTOR",
  expected: "a number above zero such as 0.5 or 10, or max",
  parse(value) {
    if (value === "max") return Infinity;
    const factor = /^\d+(\.\d+)?$/.test(value) ? Number(value) : 0;
    return factor > 0 ? factor : undefined;
  },
};

export const inspectFlags = {
  socket: flag({
    type: text("NAME"),
    default: "/tmp/subspace_shadow",
    description: "Abstract Unix socket of a shadow, or of a server",
  }),
  json: flag({ type: onOff, default: false, description: "Print the same as JSON, with a schemaVersion" }),
  timeout: flag({ type: duration, default: 5000, description: "How long to wait for answers" }),
  interval: flag({
    type: duration,
    default: 1000,
    description: "Time between two looks, over which rates are taken",
    group: "Flags of channel, watch and hz",
  }),
  count: flag({
    type: integer(0, 0x7fff_ffff),
    default: 0,
    description: "End after so many looks (watch, hz) or messages (tail, record); 0 for never",
    group: "Flags of watch, hz, tail and record",
  }),
  subscribe: flag({
    type: onOff,
    default: false,
    description:
      "Subscribe, unreliably, instead of looking on in memory: misses less, and takes a subscriber's place",
    group: "Flags of watch, hz, tail and record",
  }),
  sort: flag<WatchOrder>({
    type: choice("COLUMN", ["name", "messages", "bytes", "drops", "total"]),
    default: "name",
    description: "What channels are sorted by",
    group: "Flags of watch",
  }),
  format: flag<MessageFormat>({
    type: choice("FORMAT", ["hex", "text", "json", "proto"]),
    default: "hex",
    description: "How messages are shown",
    group: "Flags of tail",
  }),
  descriptor: flag({
    type: text("FILE"),
    default: "",
    description:
      "File that protoc --descriptor_set_out --include_imports made, for --format=proto; needs --allow-read",
    group: "Flags of tail",
  }),
  type: flag({
    type: text("TYPE"),
    default: "",
    description: "Protobuf type of the messages, for --format=proto; else the channel's own type",
    group: "Flags of tail",
  }),
  listen: flag({
    type: text("ADDR"),
    default: "",
    description: "Serve over HTTP on HOST:PORT instead of printing; needs --allow-net",
    group: "Flags of metrics",
  }),
  speed: flag({
    type: speed,
    default: 1,
    description: "How many times as fast as it was recorded; max for without a pause",
    group: "Flags of replay",
  }),
  partial: flag({
    type: onOff,
    default: false,
    description: "Replay what is good of a recording that is damaged or was broken off",
    group: "Flags of replay",
  }),
  server: flag({
    type: text("NAME"),
    default: "/tmp/subspace",
    description:
      "Abstract Unix socket of the server to publish through, and of the one to ask where no shadow names it",
    group: "Flags of publish, replay, shadows, counters and --subscribe",
  }),
  yes: flag({
    type: onOff,
    default: false,
    description: "Do it without being asked",
    group: "Flags of rollback and forget",
  }),
  reliable: flag({
    type: onOff,
    default: false,
    description: "Publish reliably: wait for subscribers instead of overwriting",
    group: "Flags of publish",
  }),
  slots: flag({
    type: integer(2, 1_000_000),
    default: 16,
    description: "Slots of the channel where there is none yet",
    group: "Flags of publish",
  }),
  whole: flag({
    type: onOff,
    default: false,
    description: "Publish all of the input as one message, instead of one for each line",
    group: "Flags of publish",
  }),
};

/** What the verbs take from the command line. */
export type InspectFlags = FlagValues<typeof inspectFlags>;

/** A verb: does its work and returns the exit code. */
export type Verb = (flags: InspectFlags, operands: readonly string[]) => Promise<number>;
