/** A whole system on one screen, as text. */

import type {
  Channel,
  Finding,
  Inspection,
  Process,
  Programs,
  Publisher,
  Subscriber,
  User,
} from "./model.ts";
import { shadowSummary } from "./shadows.ts";
import {
  type Cell,
  type Column,
  type Emphasis,
  printable,
  renderTable,
  sentenceLines,
  type Style,
} from "./table.ts";
import { formatAge, formatBytes, formatCount, formatNumberOf } from "./units.ts";

/** How a report is rendered. */
export interface ReportOptions {
  /** Columns of the terminal; Infinity for none, and then nothing is shortened. */
  readonly width: number;
  readonly style: Style;
}

/** Stands for what is not known. */
const UNKNOWN = "-";

/** Renders a system: who told, its channels, their slots and users, and last what needs attention. */
export function renderReport(inspection: Inspection, options: ReportOptions): string {
  const { channels } = inspection;
  const slotRows = channels.filter(({ slots, numSlots }) => slots !== null && numSlots > 0).map(slotRow);
  return render(inspection, options, [
    [channelColumns, channels.map(channelRow)],
    [slotColumns, slotRows],
    [optionColumns, channels.flatMap(optionRows)],
    [userColumns, channels.flatMap(userRows)],
    [clientBufferColumns, channels.flatMap(clientBufferRows)],
  ]);
}

/** Renders the channels of a system. */
export function renderChannels(inspection: Inspection, options: ReportOptions): string {
  return render(inspection, options, [[channelColumns, inspection.channels.map(channelRow)]]);
}

/** Renders the users of a system. */
export function renderUsers(inspection: Inspection, options: ReportOptions): string {
  return render(inspection, options, [[userColumns, inspection.channels.flatMap(userRows)]]);
}

/** Renders one channel of a system, with all that an inspection tells of it. */
export function renderChannelTables(channel: Channel, { width, style }: ReportOptions): string[] {
  return tables(
    [
      [channelColumns, [channelRow(channel)]],
      [optionColumns, optionRows(channel)],
      [userColumns, userRows(channel)],
      [clientBufferColumns, clientBufferRows(channel)],
    ],
    width,
    style,
  );
}

type Table = readonly [columns: readonly Column[], rows: readonly (readonly Cell[])[]];

function render(inspection: Inspection, { width, style }: ReportOptions, shown: readonly Table[]): string {
  const lines = [
    ...summary(inspection, style).flatMap((line) => sentenceLines(line, width)),
    ...tables(shown, width, style),
    ...findingLines(inspection.findings, width, style),
  ];
  return lines.join("\n") + "\n";
}

/** An empty line and the table, of those that have rows. */
function tables(shown: readonly Table[], width: number, style: Style): string[] {
  return shown.filter(([, rows]) => rows.length > 0)
    .flatMap(([columns, rows]) => ["", ...renderTable(columns, rows, width, style)]);
}

function summary(inspection: Inspection, style: Style): string[] {
  const { source, session, channels, findings } = inspection;
  const users = (count: (channel: Channel) => number) =>
    channels.reduce((sum, channel) => sum + count(channel), 0);
  const title = source.kind === "shadow" ? "Shadow" : "Server";
  const head = `${style(title, "heading")} ${printable(source.socket)} (pid ${source.pid})`;
  if (session === null) {
    return [head, "No session yet: no server has connected since the shadow was started."];
  }
  const age = session.ageMs === null ? "not of this boot" : `${formatAge(session.ageMs)} old`;
  const counts = [
    formatNumberOf(channels.length, "channel"),
    formatNumberOf(users(({ publishers }) => publishers.length), "publisher"),
    formatNumberOf(users(({ subscribers }) => subscribers.length), "subscriber"),
  ].join(", ");
  const attention = findings.length === 0
    ? ""
    : `; ${style(`see ${formatNumberOf(findings.length, "finding")} below`, "warning")}`;
  const shadows = shadowSummary(inspection);
  return [
    head,
    `Session ${session.id}, ${age}, ${serverState(session.server, style, inspection.programs)}` +
    (shadows === null ? "" : `, ${shadows.fine ? shadows.text : style(printable(shadows.text), "alarm")}`),
    counts + attention,
  ];
}

/** What is known of the server, in a few words. */
export function serverState(server: Process | null, style: Style, programs: Programs | null): string {
  const silent = programs?.serverSilent ?? false;
  if (server === null) return silent ? style("server answers NOBODY", "alarm") : "server unknown";
  if (server.alive && silent) return style(`server answers NOBODY (pid ${server.pid})`, "alarm");
  if (server.alive) return `server running (pid ${server.pid})`;
  return style(`server DOWN (pid ${server.pid} is gone)`, "alarm");
}

const channelColumns: readonly Column[] = [
  { title: "CHANNEL", minimum: 8 },
  { title: "ID", align: "right" },
  { title: "PUBS", align: "right" },
  { title: "SUBS", align: "right" },
  { title: "MESSAGES", align: "right" },
  { title: "BYTES", align: "right" },
  { title: "LARGEST", align: "right" },
  { title: "DROPS", align: "right" },
  { title: "TYPE", minimum: 12 },
];

function channelRow(channel: Channel): Cell[] {
  const { traffic, vchanId } = channel;
  return [
    channelName(channel),
    vchanId === null ? String(channel.id) : `${channel.id}.${vchanId}`,
    String(channel.numPublishers),
    alarming(String(channel.numSubscribers), isUnheard(channel), "warning"),
    known(traffic?.messages, formatCount),
    known(traffic?.bytes, formatBytes),
    known(traffic?.maxMessageBytes, formatBytes),
    alarming(known(traffic?.drops, formatCount), (traffic?.drops ?? 0) > 0, "warning"),
    channel.type,
  ];
}

/** Somebody publishes and nobody listens. The server's own channels are often so. */
function isUnheard({ name, numPublishers, numSubscribers }: Channel): boolean {
  return numPublishers > 0 && numSubscribers === 0 && !name.startsWith("/subspace/");
}

/** Virtual channels stand behind their multiplexer, a little to the right. */
function channelName({ name, mux }: Channel): string {
  return mux === null ? name : `  ${name}`;
}

const optionColumns: readonly Column[] = [{ title: "OPTIONS OF", minimum: 12 }, { title: "OPTIONS" }];

/** Most channels have none. */
function optionRows(channel: Channel): Cell[][] {
  const options = channelOptions(channel);
  return options === "" ? [] : [[channelName(channel), options]];
}

function channelOptions({ kind, options }: Channel): string {
  const words: string[] = kind === "channel" || kind === "virtual" ? [] : [kind];
  if (options === null) return words.join(", ");
  if (options.reliable) words.push("reliable");
  if (options.local) words.push("local");
  if (options.fixedSize) words.push("fixed-size");
  if (options.splitBuffers) {
    words.push(options.splitBuffersOverBridge ? "split buffers (bridge too)" : "split buffers");
  }
  if (options.maxPublishers !== null) {
    words.push(`at most ${formatNumberOf(options.maxPublishers, "publisher")}`);
  }
  if (options.maxSubscribers !== null) {
    words.push(`at most ${formatNumberOf(options.maxSubscribers, "subscriber")}`);
  }
  if (options.checksumBytes !== 4 && options.checksumBytes !== 0) {
    words.push(`checksum ${options.checksumBytes} B`);
  }
  if (options.metadataBytes > 0) words.push(`metadata ${options.metadataBytes} B`);
  if (options.queueArenaBytes > 0) words.push(`queues ${formatBytes(options.queueArenaBytes)}`);
  return words.join(", ");
}

const slotColumns: readonly Column[] = [
  { title: "SLOTS OF", minimum: 8 },
  { title: "SLOTS", align: "right" },
  { title: "SIZE", align: "right" },
  { title: "BUFFERS", align: "right" },
  { title: "FREE", align: "right" },
  { title: "OWNED", align: "right" },
  { title: "HELD", align: "right" },
  { title: "UNREAD", align: "right" },
  { title: "RETIRED", align: "right" },
  { title: "NEWEST", align: "right" },
];

function slotRow(channel: Channel): Cell[] {
  const { slots, buffers, numSlots, slotBytes, kind } = channel;
  // A virtual channel has no slots of its own: it takes its multiplexer's.
  const own = (text: string) => kind === "virtual" ? "" : text;
  return [
    channelName(channel),
    own(formatCount(numSlots)),
    own(slotBytes > 0 ? formatBytes(slotBytes) : UNKNOWN),
    own(known(buffers?.length, formatCount)),
    own(known(slots?.free, formatCount)),
    known(slots?.owned, formatCount),
    known(slots?.held, formatCount),
    known(slots?.published, formatCount),
    known(slots?.retired, formatCount),
    known(slots?.newestOrdinal, formatCount),
  ];
}

const userColumns: readonly Column[] = [
  { title: "USERS OF", minimum: 8 },
  { title: "ID", align: "right" },
  { title: "ROLE" },
  { title: "PID", align: "right" },
  { title: "PROCESS" },
  { title: "CLIENT", minimum: 8 },
  { title: "DETAILS", minimum: 20 },
];

function userRows(channel: Channel): Cell[][] {
  return [
    ...channel.publishers.map((publisher) => userRow(channel, "pub", publisher, publisherDetails(publisher))),
    ...channel.subscribers.map((subscriber) =>
      userRow(channel, "sub", subscriber, subscriberDetails(subscriber))
    ),
  ];
}

function userRow(channel: Channel, role: "pub" | "sub", user: User, details: readonly string[]): Cell[] {
  const { process } = user;
  const words = [...details];
  if (user.tunnel) words.unshift("tunnel");
  if (user.bridge) words.unshift("bridge");
  if (user.reliable) words.unshift("reliable");
  return [
    channelName(channel),
    String(user.id),
    role,
    known(process?.pid, String),
    process === null ? UNKNOWN : alarming(process.alive ? "alive" : "GONE", !process.alive, "alarm"),
    user.program ?? "",
    words.join(", "),
  ];
}

/** What a user does now comes first, for what comes last may be cut off. */
function publisherDetails(publisher: Publisher): string[] {
  const words: string[] = [];
  if (publisher.owns !== null && publisher.owns.length > 0) words.push(`owns ${slotList(publisher.owns)}`);
  if (publisher.local) words.push("local");
  if (publisher.fixedSize) words.push("fixed-size");
  if (publisher.notifyRetirement) words.push("retirement pipe");
  const leases = publisher.maxOutstandingSlotLeases ?? 1;
  if (leases > 1) words.push(`up to ${formatNumberOf(leases, "lease")}`);
  return words;
}

function subscriberDetails({ holds, unread, queueSize, maxActiveMessages }: Subscriber): string[] {
  const words: string[] = [];
  if (unread !== null && unread > 0) words.push(`${formatCount(unread)} unread`);
  if (holds !== null && holds.length > 0) words.push(`holds ${slotList(holds)}`);
  if (queueSize !== null && queueSize > 0) words.push(`queue of ${queueSize}`);
  if (maxActiveMessages !== null && maxActiveMessages > 1) words.push(`up to ${maxActiveMessages} messages`);
  return words;
}

const SLOTS_LISTED_MAX = 8;

function slotList(slots: readonly number[]): string {
  if (slots.length > SLOTS_LISTED_MAX) return formatNumberOf(slots.length, "slot");
  return `slot${slots.length === 1 ? "" : "s"} ${slots.join(" ")}`;
}

const clientBufferColumns: readonly Column[] = [
  { title: "SPLIT BUFFERS OF", minimum: 12 },
  { title: "BUFFER", align: "right" },
  { title: "PARTS", align: "right" },
  { title: "WITH FD", align: "right" },
  { title: "BYTES", align: "right" },
  { title: "ALLOCATOR" },
];

function clientBufferRows(channel: Channel): Cell[][] {
  return channel.clientBuffers.map((buffer) => [
    channelName(channel),
    String(buffer.bufferIndex),
    formatCount(buffer.parts),
    formatCount(buffer.partsWithFd),
    formatBytes(buffer.bytes),
    buffer.allocator,
  ]);
}

const marks: Record<Finding["kind"], readonly [string, Emphasis]> = {
  damage: ["DAMAGE", "alarm"],
  dead: ["DEAD", "alarm"],
  mismatch: ["MISMATCH", "warning"],
  drops: ["DROPS", "warning"],
};

/** Never shortened: a finding is read to its end. */
export function findingLines(findings: readonly Finding[], width: number, style: Style): string[] {
  if (findings.length === 0) return [];
  const widest = Math.max(...findings.map(({ kind }) => marks[kind][0].length));
  const lines = findings.flatMap(({ kind, channel, text }) => {
    const [mark, emphasis] = marks[kind];
    const sentence = printable(channel === null ? text : `${channel}: ${text}`);
    const padding = " ".repeat(widest - mark.length + 2);
    return sentenceLines(style(mark, emphasis) + padding + sentence, width, widest + 2);
  });
  return ["", ...lines];
}

function known(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? UNKNOWN : format(value);
}

function alarming(text: string, alarm: boolean, emphasis: Emphasis): Cell {
  return alarm ? { text, emphasis } : text;
}
