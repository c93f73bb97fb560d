/** Being another user for a moment: only this thread, and only where this process is root's. */

import { libc } from "../ffi/libc.ts";
import { uid } from "../ffi/process.ts";

const SYS_SETRESUID = Deno.build.arch === "x86_64" ? 117 : 147;
const UNCHANGED = -1;

/** Whether this process may act as another user. */
export const mayBeOthers = uid() === 0;

/** A user who is neither root nor, in tests, the one who runs anything. */
export const OTHER_UID = 54321;

/** Does something as another user: the kernel shows that user to whoever is connected to meanwhile. */
export function asOtherUser<T>(run: () => T): T {
  becomeEffectively(OTHER_UID);
  try {
    return run();
  } finally {
    becomeEffectively(0);
  }
}

/** The system call itself, as libc's function changes all threads. */
function becomeEffectively(user: number): void {
  const argument = user === 0 ? null : Deno.UnsafePointer.create(BigInt(user));
  if (libc.syscall(SYS_SETRESUID, UNCHANGED, argument, UNCHANGED) < 0) throw new Error(`cannot be ${user}`);
}
