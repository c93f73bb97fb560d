/** Processes and users of this machine. */

import { Errno } from "./errno.ts";
import { errno, libc } from "./libc.ts";

/** Whether a process with this id exists (as far as this pid namespace shows). One that may not be signalled does. */
export function processExists(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0 || pid > 0x7fff_ffff) return false;
  return libc.kill(pid, 0) === 0 || errno() === Errno.EPERM;
}

const SIGKILL = 9;

/** Ends a process. Returns false where this process may not, or there is none. */
export function killProcess(pid: number): boolean {
  return pid > 0 && libc.kill(pid, SIGKILL) === 0;
}

/** The user id of this process. */
export function uid(): number {
  return libc.getuid();
}

/** The group id of this process. */
export function gid(): number {
  return libc.getgid();
}

/** The machine's name; `local` where the system gives none. */
export function hostName(): string {
  const name = new Uint8Array(256);
  if (libc.gethostname(name, name.length) < 0) return "local";
  return new TextDecoder().decode(name.subarray(0, name.indexOf(0))) || "local";
}
