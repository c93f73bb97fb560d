/** Every fd that a shadow keeps, and whose it is. */

import { SystemError } from "../ffi/errno.ts";
import type { Fd } from "../ffi/fd.ts";
import type { ChannelRecord, StateDump } from "../wire/state_dump.ts";
import { SCHEMA_VERSION, type Source } from "./model.ts";
import { compareNames } from "./naming.ts";
import { type Cell, type Column, printable, renderTable, sentenceLines, type Style } from "./table.ts";
import { formatBytes, formatNumberOf } from "./units.ts";

/** An fd that a shadow keeps. */
export interface KeptFd {
  /** null: it is the whole session's. */
  readonly channel: string | null;
  /** `publisher 3`, `subscriber 0`; null: it is the channel's own, or the session's. */
  readonly owner: string | null;
  /** The process of that user; null where there is none, or it did not say. */
  readonly pid: number | null;
  /** What it is for: `channel block` (the channel control block), `trigger`. */
  readonly purpose: string;
  readonly kind: "memory" | "pipe" | "socket" | "device" | "anonymous" | "unreadable";
  /** Decimal: may pass 2^53. All anonymous fds, such as eventfds, have the same. */
  readonly inode: string;
  /** Length of memory; null for what has none. */
  readonly bytes: number | null;
}

/** The fds of a shadow. */
export interface KeptFds {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly source: Source;
  readonly fds: readonly KeptFd[];
}

const S_IFMT = 0o170000;
const kinds: Readonly<Record<number, KeptFd["kind"]>> = {
  0: "anonymous",
  0o010000: "pipe",
  0o020000: "device",
  0o100000: "memory",
  0o140000: "socket",
};

/** Lists the fds of a dump: its receiver's duplicates tell of the same open files. */
export function fdsOf(dump: StateDump, source: Source): KeptFds {
  const fds = dump.scb === null ? [] : [describe(dump.scb, null, null, 0n, "system block")];
  const channels = [...dump.channels.values()].sort((a, b) =>
    compareNames(a.info.channelName, b.info.channelName)
  );
  return { schemaVersion: SCHEMA_VERSION, source, fds: [...fds, ...channels.flatMap(fdsOfChannel)] };
}

function fdsOfChannel({ info, ccb, bcb, publishers, subscribers, clientBuffers }: ChannelRecord): KeptFd[] {
  const { channelName } = info;
  const own = (fd: Fd, purpose: string) => describe(fd, channelName, null, 0n, purpose);
  return [
    own(ccb, "channel block"),
    own(bcb, "buffer block"),
    ...[...clientBuffers.values()].flatMap(({ metadata: { bufferIndex, slotId, isPrefix }, fd }) =>
      fd === null ? [] : [own(fd, `buffer ${bufferIndex} ${isPrefix ? "prefixes" : `slot ${slotId}`}`)]
    ),
    ...[...publishers.values()].flatMap(({ info, poll, trigger, retirement }) => {
      const its = (fd: Fd, purpose: string) =>
        describe(fd, channelName, `publisher ${info.publisherId}`, info.processId, purpose);
      return [
        its(poll, "poll"),
        its(trigger, "trigger"),
        ...(retirement === null
          ? []
          : [its(retirement.read, "retirement read"), its(retirement.write, "retirement write")]),
      ];
    }),
    ...[...subscribers.values()].flatMap(({ info, poll, trigger }) => {
      const its = (fd: Fd, purpose: string) =>
        describe(fd, channelName, `subscriber ${info.subscriberId}`, info.processId, purpose);
      return [its(trigger, "trigger"), its(poll, "poll")];
    }),
  ];
}

function describe(
  fd: Fd,
  channel: string | null,
  owner: string | null,
  processId: bigint,
  purpose: string,
): KeptFd {
  const known = { channel, owner, pid: processId > 0n ? Number(processId) : null, purpose };
  try {
    const { mode, inode, bytes } = fd.stat();
    const kind = kinds[mode & S_IFMT] ?? "anonymous";
    return { ...known, kind, inode: String(inode), bytes: kind === "memory" ? bytes : null };
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    return { ...known, kind: "unreadable", inode: "0", bytes: null };
  }
}

const columns: readonly Column[] = [
  { title: "FD OF", minimum: 8 },
  { title: "OWNER" },
  { title: "PID", align: "right" },
  { title: "PURPOSE", minimum: 13 },
  { title: "KIND" },
  { title: "INODE", align: "right" },
  { title: "SIZE", align: "right" },
];

/** Renders the fds, a line each. */
export function renderFds(
  { source, fds }: KeptFds,
  { width, style }: { width: number; style: Style },
): string {
  const memory = fds.reduce((sum, { bytes }) => sum + (bytes ?? 0), 0);
  const rows = fds.map(({ channel, owner, pid, purpose, kind, inode, bytes }): Cell[] => [
    channel ?? "(session)",
    owner ?? "",
    pid === null ? "" : String(pid),
    purpose,
    kind === "unreadable" ? { text: kind, emphasis: "alarm" } : kind,
    inode,
    bytes === null ? "" : formatBytes(bytes),
  ]);
  const head = `${style("Shadow", "heading")} ${printable(source.socket)} (pid ${source.pid}) keeps ` +
    `${formatNumberOf(fds.length, "fd")}, ${formatBytes(memory)} of memory`;
  const table = rows.length === 0 ? [] : ["", ...renderTable(columns, rows, width, style)];
  return [...sentenceLines(head, width), ...table].join("\n") + "\n";
}
