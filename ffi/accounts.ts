/** Users and groups of this machine by name. */

import { cstring, rareLibc } from "./libc.ts";

/** Where `pw_uid` is in `struct passwd`, and `gr_gid` in `struct group`: behind two pointers. */
const ID_OFFSET = 16;

/** The id of a user; null where there is none of that name. */
export function userId(name: string): number | null {
  return idIn(rareLibc().getpwnam(cstring(name)));
}

/** The id of a group; null where there is none of that name. */
export function groupId(name: string): number | null {
  return idIn(rareLibc().getgrnam(cstring(name)));
}

function idIn(entry: Deno.PointerValue): number | null {
  return entry === null ? null : new Deno.UnsafePointerView(entry).getUint32(ID_OFFSET);
}
