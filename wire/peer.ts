/** Whoever is at the other end of a socket, as the kernel knows them. */

import type { Fd } from "../ffi/fd.ts";
import { peerCredentials, peerGroups } from "../ffi/unix_socket.ts";
import type { Peer } from "./access.ts";

/** An id that nobody has. */
const NOBODY = 0xffff_ffff;

/** Who connected; somebody whom only "anybody" lets in where the kernel does not say. */
export function peerOf(socket: Fd): Peer {
  const supplementaryGroups = () => peerGroups(socket);
  try {
    return { ...peerCredentials(socket), supplementaryGroups };
  } catch {
    return { pid: 0, uid: NOBODY, gid: NOBODY, supplementaryGroups: () => [] };
  }
}
