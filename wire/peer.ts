/** Whoever is at the other end of a socket, as the kernel knows them. */

import type { Fd } from "../ffi/fd.ts";
import type { System } from "../ffi/system.ts";
import type { Peer } from "./access.ts";

/** An id that nobody has. */
const NOBODY = 0xffff_ffff;

/** Who connected; somebody whom only "anybody" lets in where the kernel does not say. */
export function peerOf(system: System, socket: Fd): Peer {
  const supplementaryGroups = () => system.groups(socket);
  try {
    return { ...system.credentials(socket), supplementaryGroups };
  } catch {
    return { pid: 0, uid: NOBODY, gid: NOBODY, supplementaryGroups: () => [] };
  }
}
