/** The limit on open fds: raised at the start, and checked against what may be needed. */

import { fdLimit, setFdLimit } from "../ffi/resource_limits.ts";
import { flag, integer } from "./flags.ts";

/** A connection, and a publisher and a subscriber on a channel of their own. */
export const FDS_PER_CLIENT = 7;
/** What a program has open before anybody connects, and keeps for itself. */
const FDS_OF_ITS_OWN = 128;

export const maxFdsFlag = flag({
  type: integer(0, 0x7fff_ffff),
  default: 0,
  description: "File descriptors that may be open at a time; 0 for as many as the system allows (ulimit -Hn)",
  group: "Limits",
});

/**
 * Raises RLIMIT_NOFILE as far as it goes, or to what was asked for.
 *
 * @param asked 0 for as far as it goes.
 * @param clients How many clients there may be.
 * @returns What is to be said if that is too little; null if it is enough.
 */
export function prepareFds(asked: number, clients: number): string | null {
  const { soft } = setFdLimit(asked === 0 ? fdLimit().hard : asked);
  const needed = clients * FDS_PER_CLIENT + FDS_OF_ITS_OWN;
  if (soft >= needed) return null;
  const enough = Math.max(0, Math.floor((soft - FDS_OF_ITS_OWN) / FDS_PER_CLIENT));
  return `This process may open ${soft} file descriptors, enough for about ${enough} clients; ${clients} may need ` +
    `${needed}: raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd)` +
    (asked === 0 ? "" : ", and --max_fds");
}
