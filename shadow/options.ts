/** What a shadow can be told. */

import type { Fd } from "../ffi/fd.ts";
import { operatingSystem, type System } from "../ffi/system.ts";
import type { AccessRules } from "../wire/access.ts";
import type { Keeper } from "./fd_store.ts";

/** How a shadow runs. */
export interface ShadowOptions {
  /** Abstract name to listen on. With `.replication`, `.previous` and both behind it, it listens for ours too. */
  socket: string;
  /** A reader of the state that takes nothing for so long is dropped. Default: 30000. */
  stallMs?: number;
  /** Connections at a time. One more and the oldest that does not write is dropped. Default: 256. */
  connectionsMax?: number;
  /** Fds kept open only for readers. One more and the reader that has been at it longest is dropped. Default: 4096. */
  heldFdsMax?: number;
  /** Longest event, in bytes. Default: 64 MiB. */
  frameBytesMax?: number;
  /** Who may take the state beside root and the user that this process runs as. Default: who may write. */
  readers?: AccessRules;
  /** Who may be its server beside root and the user that this process runs as. Default: nobody. */
  writers?: AccessRules;
  /** The machine's sockets and clock. Default: those of this one. */
  system?: System;
  /** Who keeps the state when this process dies. Default: nobody. */
  keeper?: Keeper | null;
  /** What the keeper kept, by name; owned by the shadow from now on. Default: nothing. */
  kept?: ReadonlyMap<string, Fd>;
}

/** For what is not said. */
export const defaultShadowOptions: Omit<Required<ShadowOptions>, "socket"> = {
  stallMs: 30_000,
  connectionsMax: 256,
  heldFdsMax: 4096,
  frameBytesMax: 64 * 1024 * 1024,
  readers: {},
  writers: {},
  system: operatingSystem,
  keeper: null,
  kept: new Map(),
};
