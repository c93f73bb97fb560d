/** Which process a user belongs to, and whether that lives. Where it cannot be known, it does. */

import type { Host } from "./host.ts";
import { type Client, mayBeMeant, type User } from "./users.ts";

/** A process, as the records of its users name it. */
export interface ProcessRecord {
  /** 0 where it cannot be told from here whether it lives. */
  readonly processId: bigint;
  /** In clock ticks since boot; 0 where that is unknown, as from the reference's servers and shadows. */
  readonly processStart: bigint;
  /** Where the id counts; 0 where that is unknown. */
  readonly pidNamespace: bigint;
}

const UNKNOWN: ProcessRecord = { processId: 0n, processStart: 0n, pidNamespace: 0n };

/**
 * The process of a client. Unknown where the id that it says is not the one that the kernel knows: it lives in another
 * pid namespace, or connected before it forked.
 */
export function processOf(host: Host, client: Client, claimedPid: bigint): ProcessRecord {
  if (claimedPid !== BigInt(client.pid) || client.pid === 0) return UNKNOWN;
  client.processStart ??= host.processStart(client.pid) ?? 0n;
  return { processId: claimedPid, processStart: client.processStart, pidNamespace: host.pidNamespace };
}

/** Whether a process has certainly ended: nobody has its id, or somebody who started at another time. */
export function hasEnded(host: Host, { processId, processStart, pidNamespace }: ProcessRecord): boolean {
  if (processId === 0n || (pidNamespace !== 0n && pidNamespace !== host.pidNamespace)) return false;
  const start = host.processStart(Number(processId));
  return start === null || (start !== 0n && processStart !== 0n && start !== processStart);
}

/**
 * Whether a user waits for its client, and that may be this one. An id that a client still has from before may be
 * another's by now: it belongs to the process that it was given to, and was created by requests with that token, as far
 * as either is known.
 */
export function isOrphanOf(
  host: Host,
  user: User,
  { pid, isServer }: Client,
  token: bigint,
): boolean {
  if (user.client !== null) return false;
  if (!mayBeMeant(user, token)) return false;
  return isServer || mayBeIn(host, user.record.info, pid);
}

/** Whether a client with this process id may be in a process, as far as either is known. */
export function mayBeIn(
  host: Host,
  { processId, pidNamespace }: Omit<ProcessRecord, "processStart">,
  pid: number,
): boolean {
  if (processId === 0n || pid === 0 || processId === BigInt(pid)) return true;
  return pidNamespace !== 0n && pidNamespace !== host.pidNamespace;
}
