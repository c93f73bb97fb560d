/** Processes of a simulated machine, and what they wait for. */

import { Ready, type ReadyCallback, type Watch } from "../../ffi/reactor.ts";
import { ListenerFile, type OpenFile, SocketFile, VirtualFd } from "./files.ts";
import type { Machine } from "./machine.ts";

/** What a process waits for with one of its descriptors. */
export class VirtualWatch implements Watch {
  #pending = 0;
  #armed = true;
  #closed = false;

  constructor(
    readonly process: Process,
    readonly file: OpenFile,
    private events: number,
    private readonly callback: ReadyCallback,
  ) {
    file.watches.push(this);
    this.rearm(events);
  }

  /** Something has happened to the file. */
  notify(what: "readable" | "writable" | "hangup"): void {
    this.#pending |= what === "hangup" ? Ready.readable | Ready.hangup : Ready[what];
  }

  /** Whether the process is to be told. */
  get due(): boolean {
    if (this.#closed || !this.#armed) return false;
    if ((this.events & Ready.edge) !== 0) return (this.#pending & (this.events | Ready.hangup)) !== 0;
    return (this.events & Ready.readable) !== 0 && isReadable(this.file);
  }

  tell(): void {
    const ready = (this.events & Ready.edge) !== 0 ? this.#pending : Ready.readable;
    this.#pending = 0;
    if ((this.events & Ready.once) !== 0) this.#armed = false;
    this.callback(ready);
  }

  rearm(events: number): void {
    this.events = events;
    this.#armed = true;
    this.#pending = (isReadable(this.file) ? Ready.readable : 0) | Ready.writable;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.process.watches.delete(this);
    this.file.watches.splice(this.file.watches.indexOf(this), 1);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function isReadable(file: OpenFile): boolean {
  if (file instanceof ListenerFile) return file.waiting.length > 0;
  return file instanceof SocketFile && (file.inbox.length > 0 || file.peer === null);
}

/** A simulated process. */
export class Process {
  alive = true;
  stopped = false;
  /** It does nothing until then: it is slow. */
  restsUntilMs = 0;
  /** System calls until it is killed in the middle of what it does; -1: it is not. */
  fuse = -1;
  readonly fds = new Set<VirtualFd>();
  /** Told of its end. */
  readonly ends = new Set<() => void>();
  readonly watches = new Set<VirtualWatch>();

  constructor(readonly machine: Machine, readonly name: string, readonly pid: number) {}

  /** Whether it would run if something were there for it. */
  get runs(): boolean {
    return this.alive && !this.stopped && this.restsUntilMs <= this.machine.nowMs;
  }

  /** A system call begins. Returns false if the process is dead: nothing may happen any more. */
  call(): boolean {
    this.machine.activity++;
    if (this.fuse > 0) this.fuse--;
    else if (this.fuse === 0) this.kill();
    return this.alive;
  }

  /** It ends here and now; the kernel closes what it has open. */
  kill(): void {
    if (!this.alive) return;
    this.machine.trace(`${this.name} is killed`);
    this.machine.died(this);
    this.alive = false;
    this.fuse = -1;
    for (const watch of [...this.watches]) watch.close();
    const files = Array.from(this.fds, ({ file }) => file);
    this.fds.clear();
    for (const file of files) file.release();
    for (const tell of this.ends) tell();
  }

  /** A descriptor of a new file. */
  open(file: OpenFile): VirtualFd {
    return new VirtualFd(this, file);
  }
}

/** Whether a process is to be told of something. */
export function hasDue(process: Process): boolean {
  for (const watch of process.watches) if (watch.due) return true;
  return false;
}
