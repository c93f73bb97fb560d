/** Starting with the state that a shadow kept (specification, sections 3.2 and 3.5). */

import { create } from "../proto/message.ts";
import { getLogger } from "@logtape/logtape";
import { ShadowCreateChannelSchema } from "../proto/subspace.ts";
import { uid } from "../ffi/process.ts";
import { operatingSystem, type System } from "../ffi/system.ts";
import { arena } from "../shm/arena.ts";
import { AccessPolicy, type AccessRules } from "../wire/access.ts";
import { type ChannelRecord, closeChannel, closeDump, type StateDump } from "../wire/state_dump.ts";
import { ChannelTable } from "./channel_table.ts";
import type { Host } from "./host.ts";
import { JOURNAL_CHANGES_MAX } from "./journal.ts";
import type { Replication } from "./replication.ts";
import { Replicator } from "./replicator.ts";
import { type Candidate, inOrderOfFreshness } from "./freshness.ts";
import { sameType } from "./topology.ts";
import { type Offer, ShadowLink, type ShadowPatience } from "./shadow_link.ts";

const log = getLogger(["subspace", "server"]);

/** Sockets of the shadows of a server, and what it does with what they have. */
export interface ShadowNames {
  primary?: string | undefined;
  secondary?: string | undefined;
  /** Any number of others. */
  more?: readonly string[] | undefined;
  /** Socket of the shadow to recover from, wherever the freshest copy is. Default: the one with the freshest. */
  prefer?: string | undefined;
  /**
   * What to do where a channel cannot be recovered: go on without it, start without anything, or not start. Default:
   * `skip`.
   */
  onFailure?: "skip" | "fresh" | "refuse" | undefined;
  /** Changes that a shadow may miss before it gets everything again. Default: 16384. */
  journalChangesMax?: number | undefined;
  /** Who may be a shadow beside root and the user that this process runs as: it gets all memory. Default: nobody. */
  trusted?: AccessRules | undefined;
  /** Where the server listens, for those who look at a shadow. */
  serverSocket?: string | undefined;
}

/** The server is not to start: what its shadows have cannot be recovered as a whole. */
export class RecoveryRefused extends Error {
  override readonly name = "RecoveryRefused";
}

/** A server's state, and where its changes go. */
export interface Start {
  readonly table: ChannelTable;
  readonly replication: Replication;
}

/**
 * Recovers from the shadow with the freshest copy, or else from the next one, or else begins a fresh session; then
 * goes on there, and sends everything to each other shadow. Logs what could not be done.
 *
 * @throws {RecoveryRefused} If something could not be recovered, and that was not to be accepted. No shadow has been
 * told anything then.
 */
export async function startWithShadows(
  names: ShadowNames,
  host: Host,
  patience: ShadowPatience = {},
  system: System = operatingSystem,
): Promise<Start> {
  const links = linksTo(names, patience, system);
  const offers = await Promise.all(links.map((link) => link.open(false, links.length === 1)));
  const candidates = links.flatMap((link, i): FoundShadow[] => {
    const offer = offers[i];
    return offer === null ? [] : [{ link, offer, label: link.label, position: offer.position }];
  });
  const withState = candidates.filter(({ offer }) => offer.sessionId !== 0n);
  try {
    arena(); // Made while the shadow says what it has.
    const { table, whole } = await recoverFromFreshest(withState, names, host);
    const newest = withState.reduce(
      (most, { position }) => most > position.generation ? most : position.generation,
      0n,
    );
    const now = host.monotonicNs();
    const generation = now > newest ? now : newest + 1n;
    const replicator = new Replicator(
      links,
      generation,
      table,
      names.journalChangesMax ?? JOURNAL_CHANGES_MAX,
      names.serverSocket,
    );
    await replicator.begin(
      offers.map((offer) => offer !== null && offer === whole ? { ...offer, agrees: true } : offer),
    );
    return { table, replication: replicator };
  } catch (error) {
    await Promise.all(links.map((link) => link.close()));
    throw error;
  }
}

/** Links to all shadows that are named, not connected yet. */
export function linksTo(names: ShadowNames, patience: ShadowPatience, system: System): ShadowLink[] {
  const sockets = [names.primary, names.secondary, ...names.more ?? []];
  const trusted = new AccessPolicy(uid(), names.trusted);
  return sockets.flatMap((socket, i) =>
    socket ? [new ShadowLink(label(i), socket, patience, trusted, system)] : []
  );
}

function label(index: number): string {
  return ["primary", "secondary", "3rd"][index] ?? `${index + 1}th`;
}

interface FoundShadow extends Candidate {
  readonly link: ShadowLink;
  readonly offer: Offer;
}

/** A table, and the offer that it was made of where it has just what the shadow has. */
interface Recovered {
  readonly table: ChannelTable;
  readonly whole: Offer | null;
}

async function recoverFromFreshest(
  shadows: readonly FoundShadow[],
  { prefer, onFailure = "skip" }: ShadowNames,
  host: Host,
): Promise<Recovered> {
  const preferred = shadows.find(({ link }) => link.socket === prefer)?.label;
  const { order, reason } = inOrderOfFreshness(shadows, preferred);
  if (order.length > 0) {
    log.info("Recovering from {label} shadow: {reason}", { label: order[0].label, reason });
  }
  const failures: string[] = [];
  let table: ChannelTable | null = null, whole: Offer | null = null, settled = false;
  for (const { link, offer, label } of order) {
    // What is not needed was sent all the same where the shadow is one of the reference's.
    if (settled) {
      if (offer.dump !== null) closeDump(offer.dump);
      continue;
    }
    const failed: string[] = [];
    try {
      const dump = await link.take(offer);
      const { sessionId, channels: { size } } = dump, continuable = canGoOn(offer, dump);
      if (size === 0) {
        closeDump(dump);
        settled = true;
        log.info("Recovered 0 channels from {label} shadow: its session is over", { label });
        continue;
      }
      const skip = (name: string, reason: string) => {
        failed.push(name);
        log.error("Failed to recover channel '{name}' from {label} shadow: {reason}", {
          name,
          label,
          reason,
        });
      };
      table = recover(dump, host, onFailure === "skip" ? skip : undefined);
      if (table.size === 0 && size > 0) {
        table.close();
        table = null;
        throw new Error("none of its channels can be");
      }
      settled = true;
      // Also not where a multiplexer was made up, or something left out.
      if (continuable && failed.length === 0 && table.size === size) whole = offer;
      log.info("Recovered {channels} channels from {label} shadow (session_id={session})", {
        channels: table.size,
        label,
        session: sessionId,
      });
      if (failed.length > 0) {
        log.error("Left {count} channels aside in the {label} shadow, at {socket}.previous: {names}", {
          count: failed.length,
          label,
          socket: link.socket,
          names: failed.join(", "),
        });
      }
    } catch (error) {
      const reason = (error as Error).message;
      failures.push(`from ${label} shadow: ${reason}`);
      log.error("Failed to recover from {label} shadow: {reason}", { label, reason });
    }
  }
  if (onFailure === "refuse" && table === null && failures.length > 0) {
    throw new RecoveryRefused(
      `Cannot recover ${
        failures.join("; ")
      }. Nothing was changed; start with --on_recovery_failure=skip to go on ` +
        "without the channels that cannot be recovered, or with =fresh to begin anew",
    );
  }
  return { table: table ?? ChannelTable.create(host), whole };
}

/** Whether what comes after a dump makes sense to the shadow that it is of. */
function canGoOn({ resumable, position }: Offer, { channels }: StateDump): boolean {
  // What is kept aside is at no position.
  return resumable && position.complete && position.generation !== 0n &&
    channels.values().every((record) =>
      record.info.mux === "" || fits(record, channels.get(record.info.mux))
    );
}

/** Whether a virtual channel says nothing but what its multiplexer does, which alone is recovered. */
function fits({ info, clientBuffers }: ChannelRecord, multiplexer: ChannelRecord | undefined): boolean {
  if (multiplexer === undefined || clientBuffers.size > 0) return false;
  const { numSlots, checksumSize, metadataSize, type } = multiplexer.info;
  // The server before may have been killed while it told of a change to all of them.
  return info.numSlots === numSlots && info.checksumSize === checksumSize &&
    info.metadataSize === metadataSize && sameType(info.type, type);
}

/**
 * Makes a channel table of a dump: same session, ids, memory and fds, and every user an orphan until its client comes
 * back. Takes the dump's fds over; they are closed where it throws.
 *
 * @param skip Told of each channel that cannot be recovered, which is left out then. Default: that is an error.
 * @throws {Error} If the dump contradicts itself, or memory in it is not what it should be. Nothing is left then.
 */
export function recover(
  dump: StateDump,
  host: Host,
  skip?: (channelName: string, reason: string) => void,
): ChannelTable {
  using cleanup = new DisposableStack();
  const lines: string[] = [];
  const table = cleanup.use(rebuild(dump, host, { done: (record) => lines.push(lineOf(record)), skip }));
  // All at once: a record for each would take longer than to recover the channels.
  if (lines.length > 0) log.info("{lines}", { lines });
  table.finishRecovery();
  cleanup.move();
  return table;
}

/** How to rebuild a table. */
interface Rebuilding {
  /** Told of each channel that is there. */
  readonly done?: (record: ChannelRecord) => void;
  /** As for `recover`. */
  readonly skip?: ((channelName: string, reason: string) => void) | undefined;
  /** Channels that are multiplexers also where no virtual channel says so. */
  readonly multiplexers?: readonly string[];
}

/** As `recover`, without the last step: nothing in the memory has changed, and who has it in use may go on with it. */
export function rebuild(
  dump: StateDump,
  host: Host,
  { done, skip, multiplexers: known = [] }: Rebuilding,
): ChannelTable {
  using cleanup = new DisposableStack();
  const left = new Set(dump.channels.values());
  cleanup.defer(() => left.forEach(closeChannel));
  if (dump.scb === null) throw new Error("Cannot recover: there is no session");
  cleanup.use(dump.scb);
  const table = ChannelTable.recover(host, dump.sessionId, dump.scb);
  cleanup.use(table);

  const multiplexers = new Set([
    ...known,
    ...[...left].map(({ info }) => info.mux).filter((name) => name !== ""),
  ]);
  const restore = (record: ChannelRecord, how: () => void) => {
    try {
      how();
    } catch (error) {
      if (skip === undefined) throw error;
      skip(record.info.channelName, (error as Error).message);
      closeChannel(record);
      left.delete(record);
      return;
    }
    left.delete(record);
    done?.(record);
  };
  for (const record of left) {
    if (record.info.mux !== "") continue;
    restore(record, () => table.restoreChannel(record, multiplexers.has(record.info.channelName)));
  }
  for (const record of left) {
    restore(record, () => {
      if (table.find(record.info.mux) === undefined) restoreMultiplexer(table, record);
      table.restoreVirtualChannel(record);
    });
  }
  cleanup.move();
  return table;
}

/** Older shadows may know virtual channels only: the first stands for the multiplexer. */
function restoreMultiplexer(table: ChannelTable, record: ChannelRecord): void {
  using cleanup = new DisposableStack();
  const multiplexer: ChannelRecord = {
    info: create(ShadowCreateChannelSchema, {
      ...record.info,
      channelName: record.info.mux,
      mux: "",
      vchanId: 0,
    }),
    ccb: cleanup.use(record.ccb.duplicate()),
    bcb: cleanup.use(record.bcb.duplicate()),
    publishers: new Map(),
    subscribers: new Map(),
    clientBuffers: new Map(record.clientBuffers),
  };
  table.restoreChannel(multiplexer, true);
  record.clientBuffers.clear();
  cleanup.move();
}

function lineOf({ info, publishers: { size: pubs }, subscribers: { size: subs } }: ChannelRecord): string {
  const { channelName, channelId, mux } = info;
  return mux === ""
    ? `Recovered channel '${channelName}' (id=${channelId}, ${pubs} pubs, ${subs} subs)`
    : `Recovered virtual channel '${channelName}' on mux '${mux}' (${pubs} pubs, ${subs} subs)`;
}
