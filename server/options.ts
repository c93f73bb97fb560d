/** What a server can be told. */

import type { System, Timers } from "../ffi/system.ts";
import type { AccessRules } from "../wire/access.ts";
import type { Host } from "./host.ts";
import type { ServerLimits } from "./limits.ts";
import type { ShadowNames } from "./recovery.ts";
import type { ShadowPatience } from "./shadow_link.ts";

/** Where a server listens unless told otherwise. */
export const DEFAULT_SOCKET = "/tmp/subspace";

/** How long a hand-over may take unless told otherwise. */
export const TAKEOVER_MS = 5_000;

/** Options of a server. */
export interface ServerOptions {
  /** Abstract name of the socket to listen on. Default: `/tmp/subspace`. */
  socket?: string;
  /** Socket of the shadow that keeps the state. Default: none. */
  shadowSocket?: string;
  /** Socket of a second shadow. Default: none. */
  secondaryShadowSocket?: string;
  /** Other shadows, and how to recover from them. */
  recovery?: Pick<ShadowNames, "more" | "prefer" | "onFailure" | "trusted" | "journalChangesMax">;
  /** Whether the server is only for this machine; shows in its id. Default: false. */
  local?: boolean;
  /** Whether to remove what other sessions left in /dev/shm, if nothing was recovered. Default: false. */
  cleanupFilesystem?: boolean;
  /** Whether it publishes its directory and statistics. Default: true. */
  publishServerChannels?: boolean;
  /** From one statistics message to the next, in milliseconds. Default: 2000. */
  statisticsPeriodMs?: number;
  /** How often to look for what processes left when they died, in milliseconds. Default: 2000. */
  orphanCheckMs?: number;
  /**
   * How long users that were recovered are kept whose clients do not come back, though their processes may live, in
   * milliseconds; 0 for ever. Default: 0.
   */
  orphanGraceMs?: number;
  /** Who may connect beside root and the user that this process runs as. Default: nobody. */
  access?: AccessRules;
  /** How much clients may ask for. */
  limits?: Partial<ServerLimits>;
  /** How long it waits for its shadows. */
  shadowPatience?: ShadowPatience;
  /** How long handing over to another server, or taking over from one, may take, in milliseconds. Default: 5000. */
  takeoverMs?: number;
  /** Whether this process ends when the server is taken over, and may be killed where it does not. Default: false. */
  standalone?: boolean;
  /** The machine. Default: this one. */
  host?: Host;
  /** Its sockets and clock. Default: those of this machine. */
  system?: System;
  /** Default: those of the system. */
  timers?: Timers;
}

/** Those of its shadows. */
export function shadowNames(options: ServerOptions): ShadowNames {
  const { socket = DEFAULT_SOCKET, shadowSocket, secondaryShadowSocket, recovery } = options;
  return { ...recovery, primary: shadowSocket, secondary: secondaryShadowSocket, serverSocket: socket };
}
