/** What differs between two systems. Counts and ages always do, and are left out. */

import { type Channel, type Inspection, SCHEMA_VERSION } from "./model.ts";
import { compareNames } from "./naming.ts";
import { printable, type Style } from "./table.ts";

/** Something that differs. */
export interface Difference {
  /** null: the system as a whole. */
  readonly channel: string | null;
  /** Path of a member of the model: `session.id`, `publishers[3].reliable`; empty for the channel itself. */
  readonly what: string;
  /** null where only the other one has it. */
  readonly a: unknown;
  readonly b: unknown;
}

/** All that differs. */
export interface Differences {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly a: string;
  readonly b: string;
  /** The system's first, then by channel. */
  readonly differences: readonly Difference[];
}

/** What is compared of a channel; users by id. */
type Facts = Omit<Channel, "traffic" | "slots" | "publishers" | "subscribers" | "buffers"> & {
  readonly publishers: Readonly<Record<string, unknown>>;
  readonly subscribers: Readonly<Record<string, unknown>>;
  readonly numBuffers: number | null;
};

/**
 * Compares two systems.
 *
 * @param names What the two are called.
 */
export function differencesOf(a: Inspection, b: Inspection, names: readonly [string, string]): Differences {
  const differences: Difference[] = [];
  const differentKinds = a.source.kind !== b.source.kind;
  // A server tells less than a shadow: what only one of the two can know is no difference.
  const compare = (channel: string | null, a: unknown, b: unknown) =>
    collect({ channel, lenient: differentKinds, differences }, "", a, b);
  const system = ({ session }: Inspection) => ({
    session: session === null ? null : { id: session.id, server: session.server?.pid ?? null },
  });
  compare(null, system(a), system(b));
  const ours = byName(a), theirs = byName(b);
  for (const name of [...new Set([...ours.keys(), ...theirs.keys()])].sort(compareNames)) {
    compare(name, ours.get(name), theirs.get(name));
  }
  return { schemaVersion: SCHEMA_VERSION, a: names[0], b: names[1], differences };
}

function byName({ channels }: Inspection): Map<string, Facts> {
  return new Map(channels.map((channel) => [channel.name, factsOf(channel)]));
}

function factsOf({ traffic: _traffic, slots: _slots, buffers, ...channel }: Channel): Facts {
  return {
    ...channel,
    publishers: Object.fromEntries(
      channel.publishers.map((
        { owns: _owns, process, ...user },
      ) => [user.id, { ...user, pid: process?.pid ?? null }]),
    ),
    subscribers: Object.fromEntries(
      channel.subscribers.map(({ holds: _holds, unread: _unread, process, ...user }) => [
        user.id,
        { ...user, pid: process?.pid ?? null },
      ]),
    ),
    numBuffers: buffers?.length ?? null,
  };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}

interface Comparison {
  readonly channel: string | null;
  /** Whether null means "not known" instead of "none". */
  readonly lenient: boolean;
  readonly differences: Difference[];
}

/** What one of the two does not have at all is undefined. */
function collect(comparison: Comparison, path: string, a: unknown, b: unknown): void {
  const { channel, lenient, differences } = comparison;
  if (lenient && (a === null || b === null)) return;
  if (!isRecord(a) || !isRecord(b)) {
    if (a !== b) differences.push({ channel, what: path, a: a ?? null, b: b ?? null });
    return;
  }
  for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
    const part = /^\d+$/.test(key) ? `${path}[${key}]` : path === "" ? key : `${path}.${key}`;
    collect(comparison, part, a[key], b[key]);
  }
}

/** Renders differences, a line each; nothing where there are none. */
export function renderDifferences(
  { a, b, differences }: Differences,
  { style }: { readonly style: Style },
): string {
  if (differences.length === 0) return "";
  const lines = differences.map((it) => {
    const where = it.channel === null ? "" : `${printable(it.channel)} `;
    if (isRecord(it.a) !== isRecord(it.b)) {
      const what = it.what === "" ? "" : `${it.what} `;
      return isRecord(it.a)
        ? style(`- ${where}${what}only in a`, "alarm")
        : style(`+ ${where}${what}only in b`, "warning");
    }
    return `! ${where}${it.what}: ${JSON.stringify(it.a)} in a, ${JSON.stringify(it.b)} in b`;
  });
  return [`a ${printable(a)}`, `b ${printable(b)}`, ...lines].join("\n") + "\n";
}
