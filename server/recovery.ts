/** Starting with the state that a shadow kept (specification, sections 3.2 and 3.5). */

import { create } from "../proto/message.ts";
import { getLogger } from "@logtape/logtape";
import { ShadowCreateChannelSchema } from "../proto/subspace.ts";
import { type ChannelRecord, closeChannel, closeDump, type StateDump } from "../wire/state_dump.ts";
import { ChannelTable } from "./channel_table.ts";
import type { Host } from "./host.ts";
import type { Replication } from "./replication.ts";
import { type ConnectedShadow, Replicator, ShadowLink, type ShadowPatience } from "./replicator.ts";

const log = getLogger(["subspace", "server"]);

/** Socket names of the shadows of a server. */
export interface ShadowNames {
  primary?: string | undefined;
  secondary?: string | undefined;
}

/** A server's state, and where its changes go. */
export interface Start {
  readonly table: ChannelTable;
  readonly replication: Replication;
}

/**
 * Recovers from the primary shadow, or else from the secondary, or else begins a fresh session; then sends everything
 * to each shadow that is there. Logs what could not be done, and never throws for it.
 */
export async function startWithShadows(
  names: ShadowNames,
  host: Host,
  patience: ShadowPatience = {},
): Promise<Start> {
  const named = Object.entries({ primary: names.primary, secondary: names.secondary })
    .filter((entry): entry is [string, string] => Boolean(entry[1]));
  const connecting = named.map(([label, socket]) => ShadowLink.connect(label, socket, patience));
  const shadows = (await Promise.all(connecting)).filter((shadow) => shadow !== null);
  const table = recoverFromFirst(shadows, host) ?? ChannelTable.create(host);
  const links = shadows.map(({ link }) => link);
  await Promise.all(links.map((link) => link.begin(table)));
  return { table, replication: new Replicator(links) };
}

/** Takes all dumps over. */
function recoverFromFirst(shadows: readonly ConnectedShadow[], host: Host): ChannelTable | null {
  let table: ChannelTable | null = null;
  for (const { link: { label }, dump } of shadows) {
    if (table !== null || dump.scb === null) {
      closeDump(dump);
      continue;
    }
    const { sessionId, channels: { size } } = dump;
    try {
      table = recover(dump, host);
      log.info("Recovered {channels} channels from {label} shadow (session_id={session})", {
        channels: size,
        label,
        session: sessionId,
      });
    } catch (error) {
      log.error("Failed to recover from {label} shadow: {reason}", {
        label,
        reason: (error as Error).message,
      });
    }
  }
  return table;
}

/**
 * Makes a channel table of a dump: same session, ids, memory and fds, and every user an orphan until its client comes
 * back. Takes the dump's fds over; they are closed where it throws.
 *
 * @throws {Error} If the dump contradicts itself, or memory in it is not what it should be. Nothing is left then.
 */
export function recover(dump: StateDump, host: Host): ChannelTable {
  using cleanup = new DisposableStack();
  const left = new Set(dump.channels.values());
  cleanup.defer(() => left.forEach(closeChannel));
  if (dump.scb === null) throw new Error("Cannot recover: there is no session");
  cleanup.use(dump.scb);
  const table = ChannelTable.recover(host, dump.sessionId, dump.scb);
  cleanup.use(table);

  const multiplexers = new Set([...left].map(({ info }) => info.mux).filter((name) => name !== ""));
  for (const record of left) {
    if (record.info.mux !== "") continue;
    table.restoreChannel(record, multiplexers.has(record.info.channelName));
    left.delete(record);
    logRecovered(record);
  }
  for (const record of left) {
    if (table.find(record.info.mux) === undefined) restoreMultiplexer(table, record);
    table.restoreVirtualChannel(record);
    left.delete(record);
    logRecovered(record);
  }
  table.finishRecovery();
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

function logRecovered({ info, publishers, subscribers }: ChannelRecord): void {
  const properties = {
    name: info.channelName,
    id: info.channelId,
    mux: info.mux,
    pubs: publishers.size,
    subs: subscribers.size,
  };
  if (info.mux === "") {
    log.info("Recovered channel '{name}' (id={id}, {pubs} pubs, {subs} subs)", properties);
  } else {
    log.info("Recovered virtual channel '{name}' on mux '{mux}' ({pubs} pubs, {subs} subs)", properties);
  }
}
