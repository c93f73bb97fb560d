/** One channel from near: a map of its slots, who has them, and how fast it goes. */

import {
  type ControlBlockReport,
  readControlBlock,
  readOrdinalCount,
  type SlotReport,
} from "../shm/inspection.ts";
import type { SeenChannel } from "../wire/brief_dump.ts";
import { viewOf } from "./inspect.ts";
import type { ShadowSight } from "./sight.ts";
import { type Channel, type Finding, SCHEMA_VERSION, type Source } from "./model.ts";
import { findingLines, renderChannelTables, type ReportOptions } from "./report.ts";
import { type Cell, type Column, printable, renderTable, sentenceLines, type Style } from "./table.ts";
import { formatAge, formatBytes, formatCount, formatNumberOf } from "./units.ts";

/** A channel from near. */
export interface ChannelDetail {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly source: Source;
  readonly channel: Channel;
  /** null where only one look was taken, or only a server told. */
  readonly rates: Rates | null;
  /** By slot id; for a virtual channel those with its messages. null where only a server told. */
  readonly slotMap: readonly SlotDetail[] | null;
  /** Findings of this channel, and of the system as a whole. */
  readonly findings: readonly Finding[];
}

/** What happened between two looks, per second. */
export interface Rates {
  readonly overMs: number;
  readonly messages: number;
  /** null for a virtual channel: bytes and drops are counted for its whole multiplexer. */
  readonly bytes: number | null;
  readonly drops: number | null;
}

/** A slot from near. */
export interface SlotDetail {
  readonly id: number;
  readonly state: SlotReport["state"];
  /** Whether it has the message published last. */
  readonly newest: boolean;
  /** The publisher that owns it. */
  readonly owner: number | null;
  /** The subscribers that hold its message. */
  readonly holders: readonly number[];
  /** 0: it has no message. */
  readonly ordinal: number;
  readonly messageBytes: number;
  /** Time since publication; null where it has no message. */
  readonly ageMs: number | null;
  /** -1: none. */
  readonly bufferIndex: number;
  /** Payload bytes that fit; null where it has no buffer. */
  readonly slotBytes: number | null;
  /** null outside of multiplexers. */
  readonly vchanId: number | null;
  readonly activation: boolean;
}

/** A control block at a known time. */
export interface Look {
  readonly report: ControlBlockReport;
  /** Publications: of a virtual channel, its own. */
  readonly messages: number;
  /** CLOCK_MONOTONIC. */
  readonly atNs: bigint;
}

/** Looks at the control block of a channel. */
export function lookAtChannel({ ccb, bcb, info }: SeenChannel, nowNs: () => bigint): Look {
  const report = readControlBlock(ccb, bcb, info.numSlots);
  const messages = info.mux === "" ? report.totals.messages : readOrdinalCount(ccb, info.vchanId) ?? 0;
  return { report, messages, atNs: nowNs() };
}

/**
 * Shows a channel from near.
 *
 * @param before An earlier look at it; null where there was none.
 */
export function detailOf(
  sight: ShadowSight,
  channelName: string,
  before: Look | null,
  now: Look,
): ChannelDetail | null {
  const { channels, findings, source } = viewOf(sight);
  const channel = channels.find(({ name }) => name === channelName);
  if (channel === undefined) return null;
  const { vchanId } = channel;
  return {
    schemaVersion: SCHEMA_VERSION,
    source,
    channel,
    rates: before === null ? null : ratesBetween(before, now, vchanId),
    slotMap: slotMapOf(now, channel),
    findings: findings.filter((it) =>
      it.channel === null || it.channel === channelName || it.channel === channel.mux
    ),
  };
}

function ratesBetween(before: Look, now: Look, vchanId: number | null): Rates {
  const overMs = Number(now.atNs - before.atNs) / 1e6;
  const perSecond = (count: ({ report }: Look) => number) =>
    Math.max(0, count(now) - count(before)) * 1000 / Math.max(overMs, 1e-3);
  const own = vchanId === null;
  return {
    overMs,
    messages: perSecond(({ messages }) => messages),
    bytes: own ? perSecond(({ report }) => report.totals.bytes) : null,
    drops: own ? perSecond(({ report }) => report.totals.drops) : null,
  };
}

function slotMapOf({ report, atNs }: Look, { vchanId, buffers }: Channel): SlotDetail[] {
  const shown = report.slots.filter((slot) =>
    vchanId === null || (slot.vchanId === vchanId && slot.state !== "free")
  );
  const published = shown.filter(({ owner, ordinal }) => owner === null && ordinal > 0);
  const newest = published.reduce((last, { timestampNs }) => Math.max(last, timestampNs), 0);
  return shown.map((slot) => {
    const hasMessage = slot.ordinal > 0 && slot.timestampNs > 0;
    return {
      id: slot.id,
      state: slot.state,
      newest: slot.owner === null && hasMessage && slot.timestampNs === newest,
      owner: slot.owner,
      holders: slot.holders,
      ordinal: slot.ordinal,
      messageBytes: slot.ordinal > 0 ? slot.messageSize : 0,
      ageMs: hasMessage ? Math.max(0, (Number(atNs) - slot.timestampNs) / 1e6) : null,
      bufferIndex: slot.bufferIndex,
      slotBytes: buffers?.[slot.bufferIndex]?.slotBytes ?? null,
      vchanId: slot.vchanId < 0 ? null : slot.vchanId,
      activation: slot.activation,
    };
  });
}

const letters: Record<SlotDetail["state"], string> = {
  free: ".",
  owned: "o",
  held: "H",
  published: "u",
  retired: "r",
};
/** Slots that are listed as text. A map with more of them has them all, and so has the data. */
const SLOTS_LISTED_MAX = 48;
/** Slots of one line of the map. */
const MAP_COLUMNS_MAX = 64;

const slotColumns: readonly Column[] = [
  { title: "SLOT", align: "right" },
  { title: "STATE" },
  { title: "BY", minimum: 10 },
  { title: "ORDINAL", align: "right" },
  { title: "AGE", align: "right" },
  { title: "MESSAGE", align: "right" },
  { title: "SIZE", align: "right" },
  { title: "BUFFER", align: "right" },
  { title: "VCHAN", align: "right" },
];

/** Renders a channel: what an inspection says of it, its rates, the map, and its slots, the newest first. */
export function renderChannel(detail: ChannelDetail, options: ReportOptions): string {
  const { channel, source, slotMap, rates, findings } = detail;
  const { width, style } = options;
  const lines = [
    ...sentenceLines(
      `${style("Channel", "heading")} ${printable(channel.name)} of ${source.kind} ${
        printable(source.socket)
      }`,
      width,
    ),
    ...(rates === null ? [] : [ratesText(rates)]),
    ...renderChannelTables(channel, options),
    ...(slotMap === null
      ? ["", "A server does not tell of slots: look through its shadow to see them."]
      : [...mapLines(slotMap, width, style), ...slotTable(slotMap, width, style)]),
    ...findingLines(findings, width, style),
  ];
  return lines.join("\n") + "\n";
}

function ratesText({ overMs, messages, bytes, drops }: Rates): string {
  const parts = [`${formatRate(messages)} messages/s`];
  if (bytes !== null) parts.push(`${formatBytes(bytes)}/s`);
  if (drops !== null) parts.push(`${formatRate(drops)} drops/s`);
  return `${parts.join(", ")} over ${formatAge(overMs)}`;
}

/** `0`, `0.2`, `12.5`, `480`. */
export function formatRate(perSecond: number): string {
  if (perSecond === 0) return "0";
  return perSecond < 99.95 ? perSecond.toFixed(1) : formatCount(perSecond);
}

function mapLines(slotMap: readonly SlotDetail[], width: number, style: Style): string[] {
  const columns = Math.max(16, Math.min(MAP_COLUMNS_MAX, Math.floor((width - 8) / 16) * 16));
  const lines: string[] = [];
  for (let from = 0; from < slotMap.length; from += columns) {
    const row = slotMap.slice(from, from + columns).map(({ state, newest }) =>
      newest ? style("N", "heading") : letters[state]
    ).join("");
    lines.push(`${String(slotMap[from].id).padStart(6)}  ${row}`);
  }
  if (lines.length === 0) return [];
  const counts = (Object.keys(letters) as SlotDetail["state"][]).map((state) =>
    `${letters[state]} ${slotMap.filter((slot) => slot.state === state).length} ${
      state === "published" ? "unread" : state
    }`
  );
  const legend = sentenceLines(`        ${counts.join("  ")}  N newest`, width, 8);
  return ["", style("MAP OF SLOTS", "heading"), ...lines, ...legend];
}

/** Free slots without a message are left out: the map shows them. */
function slotTable(slotMap: readonly SlotDetail[], width: number, style: Style): string[] {
  const shown = slotMap.filter(({ state }) => state !== "free")
    .toSorted((a, b) => (a.ageMs ?? -1) - (b.ageMs ?? -1) || a.id - b.id);
  if (shown.length === 0) return [];
  const rows = shown.slice(0, SLOTS_LISTED_MAX).map((slot): Cell[] => [
    String(slot.id),
    (slot.state === "published" ? "unread" : slot.state) + (slot.newest ? ", newest" : "") +
    (slot.activation ? ", activation" : ""),
    slot.owner !== null
      ? `publisher ${slot.owner}`
      : slot.holders.length > 0
      ? `${slot.holders.length === 1 ? "subscriber" : "subscribers"} ${slot.holders.join(" ")}`
      : "",
    slot.ordinal === 0 ? "" : formatCount(slot.ordinal),
    slot.ageMs === null ? "" : formatAge(slot.ageMs),
    slot.ordinal === 0 ? "" : formatBytes(slot.messageBytes),
    slot.slotBytes === null ? "" : formatBytes(slot.slotBytes),
    slot.bufferIndex < 0 ? "" : String(slot.bufferIndex),
    slot.vchanId === null ? "" : String(slot.vchanId),
  ]);
  const older = shown.length - rows.length, free = slotMap.length - shown.length;
  return [
    "",
    ...renderTable(slotColumns, rows, width, style),
    ...(older === 0
      ? []
      : [style(`and ${formatNumberOf(older, "older slot")}: --json has them all`, "faint")]),
    ...(free === 0 ? [] : [style(`and ${formatNumberOf(free, "free slot")}`, "faint")]),
  ];
}
