/** Memory objects: anonymous sealed ones for what the server creates, named ones for message buffers. */

import { Errno, SystemError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { cstring, errno, libc, rareLibc } from "./libc.ts";

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const F_SEAL_GROW = 4;

const F_OK = 0;
const O_RDONLY = 0;
const O_WRONLY = 1;
const O_RDWR = 2;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_CLOEXEC = 0o2000000;

/** Makes memory as `createMemory` does. */
export type MemoryAllocator = (name: string, byteLength: number) => Fd;

/**
 * Creates zeroed anonymous memory of a fixed length, sealed against shrinking and growing.
 *
 * @param name Shown in `/proc/PID/fd`; need not be unique.
 * @throws {SystemError} If there is no memory or no fd left.
 */
export function createMemory(name: string, byteLength: number): Fd {
  const fd = Fd.from(
    libc.memfd_create(cstring(name), MFD_CLOEXEC | MFD_ALLOW_SEALING),
    "shared memory",
    `create shared memory ${name}`,
  );
  try {
    truncate(fd, byteLength);
    if (libc.fcntl(fd.number, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
      throw new SystemError(`seal shared memory ${name}`, errno());
    }
    return fd;
  } catch (error) {
    fd.close();
    throw error;
  }
}

/**
 * Creates an empty anonymous file, which grows with what is written to it.
 *
 * @param name Shown in `/proc/PID/fd`; need not be unique.
 * @throws {SystemError} If there is no memory or no fd left.
 */
export function createFile(name: string): Fd {
  return Fd.from(libc.memfd_create(cstring(name), MFD_CLOEXEC), "memory file", `create memory file ${name}`);
}

/** How a named memory object is opened. */
export interface NamedOptions {
  /** Creates the object; fails with `EEXIST` where there is one. Default: false. */
  create?: boolean;
  /** Default: true. */
  writable?: boolean;
}

/**
 * Opens or creates `/dev/shm/NAME`.
 *
 * @returns null where the object does not exist (or, with `create`, where it does).
 * @throws {SystemError} For any other failure.
 */
export function openNamed(name: string, options: NamedOptions = {}): Fd | null {
  const { create = false, writable = true } = options;
  const flags = (writable ? O_RDWR : O_RDONLY) | (create ? O_CREAT | O_EXCL : 0);
  const number = libc.shm_open(cstring("/" + name), flags, 0o666);
  if (number < 0 && errno() === (create ? Errno.EEXIST : Errno.ENOENT)) return null;
  return Fd.from(number, `/dev/shm/${name}`, `${create ? "create" : "open"} /dev/shm/${name}`);
}

/** Whether there is a `/dev/shm/NAME`. */
export function objectExists(name: string): boolean {
  return fileExists(`/dev/shm/${name}`);
}

/** Whether there is a file of this path. */
export function fileExists(path: string): boolean {
  return rareLibc().access(cstring(path), F_OK) === 0;
}

/** Removes `/dev/shm/NAME`. Returns whether there was one. */
export function unlinkNamed(name: string): boolean {
  return rareLibc().shm_unlink(cstring("/" + name)) === 0;
}

/** Removes a file, such as the description of a split buffer. Returns whether there was one. */
export function unlinkFile(path: string): boolean {
  return rareLibc().unlink(cstring(path)) === 0;
}

/**
 * Writes a small file that others read: they see all of it, or what was there before. Never through a link that
 * somebody else has put there.
 *
 * @throws {SystemError} If it cannot be written.
 */
export function writeFile(path: string, bytes: Uint8Array<ArrayBuffer>, mode: number): void {
  const draft = path + ".tmp";
  unlinkFile(draft); // Of a writer that died.
  using fd = Fd.from(
    libc.open(cstring(draft), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode),
    draft,
    `create ${draft}`,
  );
  try {
    setMode(fd, mode);
    const written = libc.write(fd.number, bytes, bytes.length);
    if (written < 0) throw new SystemError(`write ${draft}`, errno());
    if (written < bytes.length) throw new SystemError(`write ${draft}`, Errno.ENOSPC);
    if (rareLibc().rename(cstring(draft), cstring(path)) < 0) {
      throw new SystemError(`rename ${draft} to ${path}`, errno());
    }
  } catch (error) {
    unlinkFile(draft);
    throw error;
  }
}

/** Sets a file's length. */
export function truncate(fd: Fd, byteLength: number): void {
  if (libc.ftruncate(fd.number, BigInt(byteLength)) < 0) {
    throw new SystemError(`give ${fd.kind} a length of ${byteLength} bytes`, errno());
  }
}

/** Sets a file's permission bits, whatever the umask is. */
export function setMode(fd: Fd, mode: number): void {
  if (libc.fchmod(fd.number, mode) < 0) throw new SystemError(`set the mode of ${fd.kind}`, errno());
}

/** Sets a file's owner. */
export function setOwner(fd: Fd, uid: number, gid: number): void {
  if (libc.fchown(fd.number, uid, gid) < 0) throw new SystemError(`set the owner of ${fd.kind}`, errno());
}
