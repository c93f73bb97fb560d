/**
 * Watching a system: what happens a second, looked at again and again.
 *
 * A shadow is asked for everything once; after that only counters in shared memory are read. It is asked again when
 * those that change with each user do, and now and then in case another server has begun another session.
 */

import { monotonicNs } from "../ffi/clock.ts";
import { copyCounters, readOrdinalCount, readSlotArray, readTotals } from "../shm/inspection.ts";
import { type Attention, attentionLines, attentionOf, holdersOf, type SlotHolders } from "./attention.ts";
import { formatRate } from "./channel_view.ts";
import { viewOf } from "./inspect.ts";
import { look, type ShadowSight, type Sight } from "./sight.ts";
import { InspectError } from "./link.ts";
import { type Inspection, type Process, type Programs, SCHEMA_VERSION, type Source } from "./model.ts";
import { byNameBehindMultiplexer, compareNames } from "./naming.ts";
import { programsOf } from "./programs.ts";
import { type ReportOptions, serverState } from "./report.ts";
import { shadowSummary } from "./shadows.ts";
import { surroundingsNow } from "./surroundings.ts";
import { type Cell, type Column, printable, renderTable, sentenceLines } from "./table.ts";
import { formatBytes, formatCount } from "./units.ts";

/** A channel between two looks. */
export interface WatchedChannel {
  readonly name: string;
  readonly mux: string | null;
  readonly numPublishers: number;
  readonly numSubscribers: number;
  /** Messages since the channel was made; null where that cannot be read. */
  readonly messages: number | null;
  /** Messages that were missed since then. */
  readonly drops: number | null;
  /** null at the first look, and where it cannot be read. */
  readonly messagesPerSecond: number | null;
  readonly bytesPerSecond: number | null;
  readonly dropsPerSecond: number | null;
}

/** A system between two looks. */
export interface WatchSample {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly source: Source;
  readonly server: Process | null;
  /** Time since the look before; null at the first. */
  readonly overMs: number | null;
  /** Why nobody can be asked any more: then users may be outdated. null where all is well. */
  readonly stale: string | null;
  readonly channels: readonly WatchedChannel[];
  readonly attention: Attention;
  /** What server and shadows say of themselves; null where they were not asked yet. */
  readonly programs: Programs | null;
}

/** What channels can be sorted by. */
export type WatchOrder = "name" | "messages" | "bytes" | "drops" | "total";

/** Ask again after so long although nothing has changed: sooner while the server is dead. */
const ASK_EVERY_MS = 30_000;
const ASK_EVERY_WITHOUT_SERVER_MS = 2000;
/** Server and shadows are asked so often, and have so long to answer. */
const ASK_PROGRAMS_EVERY_MS = 5000;
const ASK_PROGRAMS_FOR_MS = 1000;
/** Channels whose slots are looked at with each sample, by turns: all of them within a few seconds. */
const SLOTS_OF_CHANNELS = 256;

/** A channel as it is known between two questions. */
interface Known {
  readonly name: string;
  readonly mux: string | null;
  readonly numPublishers: number;
  readonly numSubscribers: number;
}

interface Counts {
  readonly messages: number;
  readonly bytes: number | null;
  readonly drops: number | null;
}

/** Watches a system through a shadow or a server. */
export class Watcher implements Disposable {
  #sight: ShadowSight | null = null;
  #known: readonly Known[] = [];
  #source: Source | null = null;
  #server: Process | null = null;
  #told = new Map<string, Counts>();
  #askedAt = -Infinity;
  #counters: Uint8Array | null = null;
  #stale: string | null = null;
  #lastSight: Sight | null = null;
  #programs: Programs | null = null;
  #programsAt = -Infinity;
  /** By channel. */
  readonly #holders = new Map<string, SlotHolders>();
  #slotsTurn = 0;
  #before = new Map<string, Counts>();
  #beforeNs: bigint | null = null;

  constructor(private readonly socket: string, private readonly timeoutMs: number) {}

  /**
   * Looks once more.
   *
   * @throws {InspectError} If nobody could be asked the first time.
   */
  async sample(): Promise<WatchSample> {
    if (this.#mustAsk()) await this.#ask();
    await this.#askPrograms();
    this.#lookAtSlots();
    const nowNs = monotonicNs();
    const overMs = this.#beforeNs === null ? null : Number(nowNs - this.#beforeNs) / 1e6;
    const counts = new Map<string, Counts>();
    const channels = this.#known.map((channel): WatchedChannel => {
      const now = this.#countsOf(channel), before = this.#before.get(channel.name);
      if (now !== null) counts.set(channel.name, now);
      const rate = (count: (counts: Counts) => number | null) =>
        now === null || before === undefined || overMs === null
          ? null
          : rateOf(count(before), count(now), overMs);
      return {
        ...channel,
        messages: now?.messages ?? null,
        drops: now?.drops ?? null,
        messagesPerSecond: rate(({ messages }) => messages),
        bytesPerSecond: rate(({ bytes }) => bytes),
        dropsPerSecond: rate(({ drops }) => drops),
      };
    });
    this.#before = counts;
    this.#beforeNs = nowNs;
    return {
      schemaVersion: SCHEMA_VERSION,
      source: this.#source!,
      server: this.#server === null ? null : {
        pid: this.#server.pid,
        alive: surroundingsNow().processExists(this.#server.pid),
      },
      overMs,
      stale: this.#stale,
      channels,
      attention: attentionOf(channels, this.#holders.values()),
      programs: this.#programs,
    };
  }

  async #askPrograms(): Promise<void> {
    if (performance.now() - this.#programsAt < ASK_PROGRAMS_EVERY_MS) return;
    const sight = this.#lastSight;
    if (sight === null) return;
    const timeoutMs = Math.min(this.timeoutMs, ASK_PROGRAMS_FOR_MS);
    // Which shadows there are only the server knows: it may be gone by now.
    const known = this.#programs?.shadows.map(({ socket }) => socket) ?? [];
    this.#programs = await programsOf([this.socket, ...known], { timeoutMs, sight });
    this.#programsAt = performance.now();
  }

  #lookAtSlots(): void {
    const sight = this.#sight;
    if (sight === null) return;
    const channels = [...sight.dump.channels.values()].filter(({ info }) => info.mux === "");
    for (let i = 0; i < Math.min(SLOTS_OF_CHANNELS, channels.length); i++) {
      const { info, ccb, subscribers } = channels[this.#slotsTurn++ % channels.length];
      const pidOf = (id: number) => Number(subscribers.get(id)?.info.processId ?? 0n) || null;
      const holders = holdersOf(info.channelName, readSlotArray(ccb, info.numSlots), pidOf);
      if (holders === null) this.#holders.delete(info.channelName);
      else this.#holders.set(info.channelName, holders);
    }
  }

  [Symbol.dispose](): void {
    this.#sight?.[Symbol.dispose]();
    this.#sight = null;
  }

  #mustAsk(): boolean {
    if (this.#sight === null) return true;
    const age = performance.now() - this.#askedAt;
    const serverAlive = this.#server !== null && surroundingsNow().processExists(this.#server.pid);
    if (age > (serverAlive ? ASK_EVERY_MS : ASK_EVERY_WITHOUT_SERVER_MS)) return true;
    const { scb } = this.#sight.dump;
    const counters = scb === null ? null : copyCounters(scb);
    return !sameBytes(counters, this.#counters);
  }

  async #ask(): Promise<void> {
    this.#askedAt = performance.now();
    try {
      const sight = await look(this.socket, { timeoutMs: this.timeoutMs });
      this.#counters = sight.kind === "shadow" && sight.dump.scb !== null
        ? copyCounters(sight.dump.scb)
        : null;
      this.#lastSight = sight;
      this.#holders.clear();
      if (sight.kind === "shadow") this.#useShadow(sight);
      else this.#useServer(viewOf(sight));
      this.#stale = null;
    } catch (error) {
      if (!(error instanceof InspectError) || this.#source === null) throw error;
      // What is known is watched on: its memory is here as long as this side has its fds.
      this.#stale = error.message;
    }
  }

  #useShadow(sight: ShadowSight): void {
    this.#sight?.[Symbol.dispose]();
    this.#sight = sight;
    this.#source = sight.source;
    const directory = [...sight.dump.channels.get("/subspace/ChannelDirectory")?.publishers.values() ?? []];
    const pids = directory.map(({ info }) => Number(info.processId)).filter((pid) => pid > 0);
    const { processExists } = surroundingsNow();
    const pid = pids.findLast(processExists) ?? pids.at(-1);
    this.#server = pid === undefined ? null : { pid, alive: processExists(pid) };
    this.#known = [...sight.dump.channels.values()].map(({ info, publishers, subscribers }) => ({
      name: info.channelName,
      mux: info.mux === "" ? null : info.mux,
      numPublishers: publishers.size,
      numSubscribers: subscribers.size,
    }));
  }

  #useServer({ source, session, channels }: Inspection): void {
    this.#source = source;
    this.#server = session?.server ?? null;
    this.#known = channels.map(({ name, mux, numPublishers, numSubscribers }) => ({
      name,
      mux,
      numPublishers,
      numSubscribers,
    }));
    this.#told = new Map(
      channels.flatMap(({ name, traffic }) =>
        traffic === null
          ? []
          : [[name, { messages: traffic.messages, bytes: traffic.bytes, drops: traffic.drops }] as const]
      ),
    );
  }

  #countsOf({ name }: Known): Counts | null {
    if (this.#sight === null) return this.#told.get(name) ?? null;
    const record = this.#sight.dump.channels.get(name);
    if (record === undefined) return null;
    if (record.info.mux !== "") {
      const messages = readOrdinalCount(record.ccb, record.info.vchanId);
      return messages === null ? null : { messages, bytes: null, drops: null };
    }
    return readTotals(record.ccb);
  }
}

function sameBytes(a: Uint8Array | null, b: Uint8Array | null): boolean {
  if (a === null || b === null) return a === b;
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function rateOf(before: number | null, now: number | null, overMs: number): number | null {
  if (before === null || now === null || overMs <= 0) return null;
  return Math.max(0, now - before) * 1000 / overMs;
}

const keys: Record<Exclude<WatchOrder, "name">, (channel: WatchedChannel) => number> = {
  messages: ({ messagesPerSecond }) => messagesPerSecond ?? -1,
  bytes: ({ bytesPerSecond }) => bytesPerSecond ?? -1,
  drops: ({ dropsPerSecond, drops }) => (dropsPerSecond ?? 0) * 1e12 + (drops ?? -1),
  total: ({ messages }) => messages ?? -1,
};

/** Sorts channels: by name as everywhere, by a number the largest first. */
export function sortWatched(channels: readonly WatchedChannel[], order: WatchOrder): WatchedChannel[] {
  if (order === "name") {
    return channels.toSorted((a, b) => byNameBehindMultiplexer(a, b));
  }
  const key = keys[order];
  return channels.toSorted((a, b) => key(b) - key(a) || compareNames(a.name, b.name));
}

const columns: readonly Column[] = [
  { title: "CHANNEL", minimum: 8 },
  { title: "PUBS", align: "right" },
  { title: "SUBS", align: "right" },
  { title: "MESSAGES/S", align: "right" },
  { title: "BYTES/S", align: "right" },
  { title: "DROPS/S", align: "right" },
  { title: "MESSAGES", align: "right" },
  { title: "DROPS", align: "right" },
];

/** How a sample is rendered. */
export interface WatchOptions extends ReportOptions {
  readonly order: WatchOrder;
  /** Lines of the terminal; Infinity for none. */
  readonly height: number;
  /** What keys do; empty where there are none. */
  readonly footer: string;
}

/** Renders a sample: as many channels as there is room for. */
export function renderWatch(sample: WatchSample, options: WatchOptions): string {
  const { source, server, stale, overMs, channels } = sample;
  const { width, style, order, height, footer } = options;
  const total = channels.reduce(
    (sum, { mux, messagesPerSecond }) => sum + (mux === null ? messagesPerSecond ?? 0 : 0),
    0,
  );
  const shadows = shadowSummary(sample);
  const rate = overMs === null ? "measuring" : `${formatRate(total)} messages/s`;
  const head = [
    `${style(source.kind === "shadow" ? "Shadow" : "Server", "heading")} ${printable(source.socket)}, ${
      serverState(server, style, sample.programs)
    }, ${rate}`,
    ...(shadows === null ? [] : [style(printable(shadows.text), shadows.fine ? "faint" : "alarm")]),
    ...attentionLines(sample.attention, width, style),
    ...(stale === null ? [] : [style(`Outdated: ${printable(stale)}`, "warning")]),
    "",
  ].flatMap((line) => sentenceLines(line, width));
  const room = Math.max(1, height - head.length - 1 - (footer === "" ? 0 : 2));
  const sorted = sortWatched(channels, order);
  const fits = sorted.length <= room;
  const shown = fits ? sorted : sorted.slice(0, Math.max(1, room - 1));
  const lines = [...head, ...renderTable(columns, shown.map((channel) => row(channel, order)), width, style)];
  if (!fits) lines.push(style(`and ${formatCount(sorted.length - shown.length)} more`, "faint"));
  if (footer !== "") lines.push("", style(footer, "faint"));
  return lines.join("\n") + "\n";
}

function row(channel: WatchedChannel, order: WatchOrder): Cell[] {
  const { name, mux, numPublishers, numSubscribers, messages, drops } = channel;
  const or = (value: number | null, format: (value: number) => string) =>
    value === null ? "-" : format(value);
  const dropping = (channel.dropsPerSecond ?? 0) > 0;
  return [
    mux === null || order !== "name" ? name : `  ${name}`,
    String(numPublishers),
    String(numSubscribers),
    or(channel.messagesPerSecond, formatRate),
    or(channel.bytesPerSecond, formatBytes),
    dropping
      ? { text: or(channel.dropsPerSecond, formatRate), emphasis: "alarm" }
      : or(channel.dropsPerSecond, formatRate),
    or(messages, formatCount),
    or(drops, formatCount),
  ];
}
