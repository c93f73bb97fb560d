/** What a server begins with, and where it comes from. */

import { getLogger } from "@logtape/logtape";
import type { Fd } from "../ffi/fd.ts";
import { hostName } from "../ffi/process.ts";
import type { System } from "../ffi/system.ts";
import { ChannelTable } from "./channel_table.ts";
import type { ServerCounters } from "./counters.ts";
import type { Host } from "./host.ts";
import { DEFAULT_SOCKET, type ServerOptions, shadowNames } from "./options.ts";
import { startWithShadows } from "./recovery.ts";
import type { Replication } from "./replication.ts";

const log = getLogger(["subspace", "server"]);

/** What a server begins with. */
export interface Beginning {
  readonly listener: Fd;
  readonly table: ChannelTable;
  readonly replication: Replication | null;
  /** Of a server that it goes on for. */
  readonly counters?: ServerCounters;
}

/** The state that its shadows kept, or else a new one. */
export async function begin(
  options: ServerOptions,
  host: Host,
  system: System,
): Promise<{ table: ChannelTable; replication: Replication | null }> {
  const { shadowSocket, secondaryShadowSocket, shadowPatience } = options;
  if (!shadowSocket && !secondaryShadowSocket) {
    return { table: ChannelTable.create(host), replication: null };
  }
  return await startWithShadows(shadowNames(options), host, shadowPatience, system);
}

/** Removes all message buffers of the machine: for one that runs no other server. */
export function cleanupFilesystem(host: Host): void {
  log.info("Cleaning up filesystem...");
  for (const name of host.listSharedMemory()) if (name.startsWith("subspace_")) host.removeSharedMemory(name);
}

/** Tells this run of this server from all others, also where the session goes on (specification, section 6). */
export function serverId(
  host: Host,
  pid: number,
  { socket = DEFAULT_SOCKET, local = false }: ServerOptions,
): string {
  return `${local ? "local" : hostName()}.${socket}.${pid}.${host.monotonicNs()}`;
}
