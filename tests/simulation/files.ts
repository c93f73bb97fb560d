/**
 * The files of a simulated machine, and the descriptors that processes have of them.
 *
 * A file lives while a descriptor of it is open or on its way through a socket. Whose descriptor is whose is known by
 * the file itself, not by a number: two are the same eventfd if their `file` is the same object.
 */

import { SystemError } from "../../ffi/errno.ts";
import { Fd, type FileStatus } from "../../ffi/fd.ts";
import { Errno } from "../../ffi/errno.ts";
import type { MapOptions } from "../../ffi/mapping.ts";
import { Arena, ArenaMapping, useArena } from "../../shm/arena.ts";
import type { Process, VirtualWatch } from "./process.ts";

/** Anything that a descriptor may be of. */
export class OpenFile {
  /** Descriptors, in processes and on their way. */
  references = 0;
  /** Those who wait for it. */
  readonly watches: VirtualWatch[] = [];

  constructor(readonly kind: string, readonly id: number) {}

  retain(): this {
    this.references++;
    return this;
  }

  release(): void {
    if (--this.references === 0) this.ended();
    if (this.references < 0) throw new Error(`${this.kind} ${this.id} was closed more often than opened`);
  }

  /** The last descriptor is gone. */
  protected ended(): void {}
}

/** Memory: a range of the arena, so that mapping it takes no system call. */
export class MemoryFile extends OpenFile {
  constructor(id: number, readonly address: number, readonly bytes: number) {
    super("shared memory", id);
  }
}

/** An eventfd. */
export class EventFile extends OpenFile {
  count = 0;

  constructor(id: number) {
    super("eventfd", id);
  }
}

/** Bytes that one call sent, with the files that came with them. */
interface Segment {
  bytes: Uint8Array<ArrayBuffer>;
  files: OpenFile[];
}

/** One end of a connection. */
export class SocketFile extends OpenFile {
  /** null once the other end is closed. */
  peer: SocketFile | null = null;
  /** What the other end has sent. */
  readonly inbox: Segment[] = [];
  inboxBytes = 0;
  /** Whether the last that was sent did not fit. */
  blocked = false;
  /** The step in which that was last so. */
  blockedIn = -1;
  /** The other end was closed with something unread in it. */
  reset = false;

  constructor(
    id: number,
    readonly owner: string,
    /** Bytes that may be on the way to it. */
    readonly capacity: number,
    readonly peerPid: number,
  ) {
    super("socket", id);
  }

  protected override ended(): void {
    const { peer } = this;
    const unread = this.inbox.splice(0);
    for (const { files } of unread) for (const file of files) file.release();
    if (peer === null) return;
    peer.peer = null;
    peer.reset ||= unread.length > 0;
    for (const watch of peer.watches) watch.notify("hangup");
  }
}

/** A socket that listens. */
export class ListenerFile extends OpenFile {
  readonly waiting: SocketFile[] = [];

  /** @param pid Of whoever listens. */
  constructor(id: number, readonly name: string, readonly pid: number, private readonly forget: () => void) {
    super("listener", id);
  }

  protected override ended(): void {
    this.forget();
    for (const socket of this.waiting.splice(0)) socket.release();
  }
}

/** A descriptor in a simulated process. */
export class VirtualFd extends Fd {
  #open = true;

  constructor(readonly process: Process, readonly file: OpenFile) {
    super(file.id, file.kind);
    // A dead process opens nothing.
    if (!process.alive) return;
    file.retain();
    process.fds.add(this);
  }

  override get number(): number {
    this.use();
    return this.file.id;
  }

  override get closed(): boolean {
    return !this.#open;
  }

  /** Says that it is about to be used: not after it was closed, and not by another process. */
  use(): void {
    if (!this.#open) {
      this.process.machine.violated(`${this.process.name} uses a ${this.kind} that it has closed`);
      throw new SystemError(`use ${this.kind}`, Errno.EBADF);
    }
  }

  override duplicate(): Fd {
    this.use();
    return new VirtualFd(this.process, this.file);
  }

  override stat(): FileStatus {
    this.use();
    const bytes = this.file instanceof MemoryFile ? this.file.bytes : 0;
    return { device: 0n, inode: BigInt(this.file.id), mode: 0, bytes };
  }

  override setNonBlocking(): void {
    this.use();
  }

  override close(): void {
    if (!this.#open) return;
    this.#open = false;
    // The kernel has closed it already where the process is dead.
    if (this.process.fds.delete(this)) this.file.release();
  }
}

/** An arena in which simulated memory is, and from which all of it can be taken back. */
class SimulationArena extends Arena {
  readonly #taken = new Map<number, number>();

  override map(fd: Fd, byteLength: number, options?: MapOptions): ArenaMapping {
    if (!(fd instanceof VirtualFd)) return super.map(fd, byteLength, options);
    fd.use();
    if (!(fd.file instanceof MemoryFile)) throw new SystemError(`map ${fd.kind}`, Errno.ENODEV);
    if (fd.file.bytes < byteLength) {
      throw new RangeError(`Cannot map ${byteLength} bytes of ${fd.file.bytes}`);
    }
    return new ArenaMapping(fd.file.address, byteLength, () => {});
  }

  override allocate(byteLength: number): number {
    const address = super.allocate(byteLength);
    this.#taken.set(address, byteLength);
    return address;
  }

  override free(address: number, byteLength: number): void {
    if (this.#taken.delete(address)) super.free(address, byteLength);
  }

  /** Takes back all that killed processes could not give back. */
  clear(): void {
    for (const [address, byteLength] of this.#taken) super.free(address, byteLength);
    this.#taken.clear();
  }
}

/** The memory of all simulated processes of this process. */
export const memory = new SimulationArena();
useArena(memory);
