/** Processes and users of this machine. */

import { Errno } from "./errno.ts";
import { Fd } from "./fd.ts";
import { cstring, errno, libc, rareLibc } from "./libc.ts";
import { pollSync } from "./poll.ts";

const SYS_PIDFD_OPEN = 434;
const O_CLOEXEC = 0o2000000;

/** More than `/proc/PID/stat` has. */
const STAT_BYTES = 4096;
/** `starttime` among the fields behind the name, of which the first is the state. */
const START_FIELD = 19;

/**
 * A process that is held on to: it is not mistaken for another one that gets the same id. Its fd is readable once the
 * process has ended, whether or not its parent has asked.
 *
 * @returns null where there is none with this id that can be seen from here, or no fd for it.
 */
export function openProcess(pid: number): Fd | null {
  if (!isPid(pid)) return null;
  const number = libc.syscall(SYS_PIDFD_OPEN, pid, null, 0);
  return number < 0 ? null : Fd.adopt(number, "process");
}

/**
 * When a process started, in clock ticks since boot: no other one with its id started then.
 *
 * @returns null where there is no such process, or it has ended; 0 where the system does not say.
 */
export function processStart(pid: number): bigint | null {
  if (!isPid(pid)) return null;
  using process = openProcess(pid);
  if (process === null) {
    // A kernel without such fds, or none left: ask in the old way.
    return errno() !== Errno.ESRCH && mayBeSignalled(pid) ? 0n : null;
  }
  const start = readStart(pid);
  // The process is held on to: if it lives still, what was read was its own.
  return pollSync([process.number], 0).length > 0 ? null : start;
}

/** Whether there is a process with this id that has not ended, as far as this pid namespace shows. */
export function processExists(pid: number): boolean {
  return processStart(pid) !== null;
}

function isPid(pid: number): boolean {
  return Number.isInteger(pid) && pid > 0 && pid <= 0x7fff_ffff;
}

function mayBeSignalled(pid: number): boolean {
  return rareLibc().kill(pid, 0) === 0 || errno() === Errno.EPERM;
}

const SIGKILL = 9;

/** Ends a process. Returns false where this process may not, or there is none. */
export function killProcess(pid: number): boolean {
  return pid > 0 && rareLibc().kill(pid, SIGKILL) === 0;
}

function readStart(pid: number): bigint {
  const number = libc.open(cstring(`/proc/${pid}/stat`), O_CLOEXEC, 0);
  if (number < 0) return 0n;
  using file = Fd.adopt(number, "file");
  const bytes = new Uint8Array(STAT_BYTES);
  const text = new TextDecoder().decode(
    bytes.subarray(0, Math.max(libc.read(file.number, bytes, bytes.length), 0)),
  );
  // The name may contain anything, parentheses and spaces too.
  const field = text.slice(text.lastIndexOf(")") + 2).split(" ")[START_FIELD];
  return /^\d+$/.test(field ?? "") ? BigInt(field) : 0n;
}

/** The pid namespace of this process: ids of processes count in one only. 0 where the system does not say. */
export function pidNamespace(): bigint {
  const number = libc.open(cstring("/proc/self/ns/pid"), O_CLOEXEC, 0);
  if (number < 0) return 0n;
  using file = Fd.adopt(number, "namespace");
  return file.stat().inode;
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
  if (rareLibc().gethostname(name, name.length) < 0) return "local";
  return new TextDecoder().decode(name.subarray(0, name.indexOf(0))) || "local";
}
