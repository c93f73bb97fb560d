/**
 * A simulated machine: processes, sockets, memory and time, all from a seed.
 *
 * One thing happens at a time: a process is told that sockets are ready or that a timer is due, runs until it has
 * nothing to do, and the next thing is chosen. A process may be stopped, and killed: between two such things, or at
 * any of its system calls. What it does after its death changes nothing, not even memory.
 */

import { Errno, SystemError } from "../../ffi/errno.ts";
import type { Fd } from "../../ffi/fd.ts";
import type { Received } from "../../ffi/message.ts";
import type { System } from "../../ffi/system.ts";
import type { Host } from "../../server/host.ts";
import { Random } from "../chaos/random.ts";
import { EventFile, ListenerFile, memory, MemoryFile, OpenFile, SocketFile, VirtualFd } from "./files.ts";
import { hasDue, Process, VirtualWatch } from "./process.ts";

/** Connections that may wait to be accepted. */
const BACKLOG = 32;
/** Promises that resolve one another without a system call in between, at the most. */
const MICROTASKS_MAX = 24;

/** How the kernel of a machine behaves. */
export interface MachineTraits {
  /** Bytes that fit into a socket. */
  readonly socketBytes: number;
  /** Of a hundred calls that send or receive, those that take less than they could. */
  readonly shortTransfers: number;
  /** Whether a process can be told of the end of another one. */
  readonly watchesProcesses: boolean;
}

interface Timer {
  readonly atMs: number;
  readonly process: Process;
  readonly callback: () => void;
}

/** Something does not hold that always should. */
export class Violation extends Error {
  override readonly name = "Violation";
}

/** A file behind a descriptor, if it is one of this process and of that kind. */
function fileOf<Kind extends OpenFile>(fd: Fd, kind: abstract new (...args: never[]) => Kind): Kind {
  if (!(fd instanceof VirtualFd)) throw new TypeError("a real descriptor in a simulation");
  fd.use();
  if (fd.file instanceof kind) return fd.file;
  throw new SystemError(`use ${fd.kind}`, Errno.ENOTSOCK);
}

/** A simulated machine. */
export class Machine {
  readonly random: Random;
  readonly processes: Process[] = [];
  nowMs = 1000;
  /** Grows with everything that processes do. */
  activity = 0;
  /** How often a process was let do something. */
  step = 0;
  readonly #listeners = new Map<string, ListenerFile>();
  readonly #timers: Timer[] = [];
  readonly #memoryFiles: MemoryFile[] = [];
  #nextFile = 1;
  #nextPid = 100;
  #nanoseconds = 0n;
  #lines: string[] | null;
  /** The first thing that did not hold. */
  violation: Violation | null = null;
  /** Memory as it was when the running process died; null if it lives. */
  #atDeath: { file: MemoryFile; bytes: Uint8Array }[] | null = null;
  #running: Process | null = null;
  /** Told of each death before anything of the process is gone. */
  onDeath: (process: Process) => void = () => {};

  constructor(seed: number, readonly traits: (random: Random) => MachineTraits, traced: boolean) {
    this.random = new Random(seed);
    this.#lines = traced ? [] : null;
    this.kernel = traits(this.random);
  }

  readonly kernel: MachineTraits;

  /** What happened so far; empty unless it was asked for. */
  get lines(): readonly string[] {
    return this.#lines ?? [];
  }

  trace(what: string): void {
    this.#lines?.push(`${this.nowMs.toFixed(1)} ${what}`);
  }

  /** Whether the trace is wanted: for those who would compute what to say. */
  get traced(): boolean {
    return this.#lines !== null;
  }

  violated(what: string): void {
    if (this.#running?.alive === false) return;
    this.trace(`VIOLATION: ${what}`);
    this.violation ??= new Violation(what);
  }

  chance(percent: number): boolean {
    return this.random.next() * 100 < percent;
  }

  spawn(name: string): Process {
    const process = new Process(this, name, this.#nextPid++);
    this.processes.push(process);
    return process;
  }

  #living(pid: number): Process | undefined {
    return this.processes.find((process) => process.alive && process.pid === pid);
  }

  #startOf(pid: number): bigint | null {
    return this.#living(pid) === undefined ? null : BigInt(pid);
  }

  #watchProcess(watcher: Process, pid: number, ended: () => void): Disposable | null {
    const watched = this.#living(pid);
    if (watched === undefined || !this.kernel.watchesProcesses) return null;
    const tell = () => {
      if (watcher.alive) this.#timers.push({ atMs: this.nowMs, process: watcher, callback: told });
    };
    const told = () => {
      if (watched.ends.delete(tell)) ended();
    };
    watched.ends.add(tell);
    return { [Symbol.dispose]: () => void watched.ends.delete(tell) };
  }

  died(process: Process): void {
    this.onDeath(process);
    if (process !== this.#running) return;
    this.#atDeath = this.#memoryFiles.map((file) => ({
      file,
      bytes: memory.u8.slice(file.address, file.address + file.bytes),
    }));
  }

  /** Lets a process do something, to the end. */
  async run(process: Process, what: string, act: () => void): Promise<void> {
    this.#running = process;
    this.step++;
    this.trace(`${process.name}: ${what}`);
    try {
      act();
    } catch (error) {
      this.trace((error as Error).stack ?? "");
      this.violated(`${process.name} throws: ${error}`);
    }
    for (let idle = 0, before = this.activity; idle < MICROTASKS_MAX; idle++) {
      await null;
      if (before === this.activity) continue;
      before = this.activity;
      idle = 0;
    }
    process.fuse = -1;
    for (const { file, bytes } of this.#atDeath ?? []) memory.u8.set(bytes, file.address);
    this.#atDeath = null;
    this.#running = null;
  }

  /** Lets a process that has something to do, do it. Returns false if none has. */
  async dispatch(): Promise<boolean> {
    const ready = this.processes.filter((process) => process.runs && hasDue(process));
    const due = this.#timers.filter(({ atMs, process }) => atMs <= this.nowMs && process.runs);
    const choice = this.random.below(ready.length + due.length);
    if (choice < ready.length) {
      const process = ready[choice], watches = [...process.watches].filter((watch) => watch.due);
      const first = this.random.below(watches.length), count = 1 + this.random.below(watches.length);
      await this.run(process, `${count} of ${watches.length} sockets are ready`, () => {
        for (let i = 0; i < count; i++) {
          const watch = watches[(first + i) % watches.length];
          if (watch.due) watch.tell();
        }
      });
      return true;
    }
    const timer = due[choice - ready.length];
    if (timer === undefined) return false;
    this.#timers.splice(this.#timers.indexOf(timer), 1);
    await this.run(timer.process, "a timer is due", timer.callback);
    return true;
  }

  /** When the next timer is due or the next slow process goes on; infinite if never. */
  get nextMs(): number {
    let next = Infinity;
    for (const { atMs, process } of this.#timers) {
      if (process.alive && !process.stopped) next = Math.min(next, Math.max(atMs, process.restsUntilMs));
    }
    for (const process of this.processes) {
      if (process.alive && !process.stopped && process.restsUntilMs > this.nowMs) {
        next = Math.min(next, process.restsUntilMs);
      }
    }
    return next;
  }

  /** Takes back all memory. The machine is of no use any more. */
  end(): void {
    for (const process of this.processes) process.kill();
    memory.clear();
  }

  #file<File extends OpenFile>(make: (id: number) => File): File {
    return make(this.#nextFile++);
  }

  /** What a process needs of the system. */
  system(process: Process): System {
    return {
      pid: process.pid,
      processStart: (pid) => this.#startOf(pid),
      listen: (name) => this.#listen(process, name),
      connect: (name) => this.#connect(process, name),
      accept: (listener) => this.#accept(process, listener),
      credentials: (socket) => ({ pid: fileOf(socket, SocketFile).peerPid, uid: 0, gid: 0 }),
      groups: () => [],
      send: (socket, bytes, fds) => this.#send(process, socket, bytes, fds),
      receive: (socket, into) => this.#receive(process, socket, into),
      watch: (fd, events, callback) => {
        const watch = new VirtualWatch(process, fileOf(fd, OpenFile), events, callback);
        if (process.alive) process.watches.add(watch);
        return watch;
      },
      monotonicNs: () => this.#monotonicNs(),
      monotonicMs: () => this.nowMs,
      after: (ms, callback) => {
        const timer = { atMs: this.nowMs + Math.max(ms, 0), process, callback };
        if (process.alive) this.#timers.push(timer);
        return () => {
          const at = this.#timers.indexOf(timer);
          if (at >= 0) this.#timers.splice(at, 1);
        };
      },
    };
  }

  /** What a channel table in a process needs of the machine. */
  host(process: Process): Host {
    return {
      userId: 0,
      groupId: 0,
      monotonicNs: () => this.#monotonicNs(),
      pidNamespace: 1n,
      processStart: (pid) => this.#startOf(pid),
      watchProcess: (pid, ended) => this.#watchProcess(process, pid, ended),
      createMemory: (_name, byteLength) => {
        const file = this.#file((id) => new MemoryFile(id, memory.allocate(byteLength), byteLength));
        this.#memoryFiles.push(file);
        return process.open(file);
      },
      checkRoomFor: () => {},
      createEventFd: () => process.open(this.#file((id) => new EventFile(id))),
      createPacketPipe: () => {
        const [read, write] = ["read", "write"].map((end) =>
          process.open(this.#file((id) => new OpenFile(`pipe (${end} end)`, id)))
        );
        return [read, write];
      },
      trigger: (fd) => {
        if (process.call() && fd instanceof VirtualFd) fileOf(fd, EventFile).count++;
      },
      notifyRetired: (pipe) => {
        pipe.stat();
        return true;
      },
      listSharedMemory: () => [],
      removeSharedMemory: () => false,
      removeFile: () => false,
    };
  }

  #monotonicNs(): bigint {
    return BigInt(Math.round(this.nowMs * 1e6)) + ++this.#nanoseconds;
  }

  #listen(process: Process, name: string): Fd {
    if (this.#listeners.has(name)) throw new SystemError(`listen on ${name}`, Errno.EADDRINUSE);
    const listener = this.#file((id) =>
      new ListenerFile(id, name, process.pid, () => this.#listeners.delete(name))
    );
    this.#listeners.set(name, listener);
    return process.open(listener);
  }

  #connect(process: Process, name: string): Fd {
    const listener = this.#listeners.get(name);
    if (!process.call() || listener === undefined) {
      throw new SystemError(`connect to ${name}`, Errno.ECONNREFUSED);
    }
    if (listener.waiting.length >= BACKLOG) throw new SystemError(`connect to ${name}`, Errno.EAGAIN);
    const { socketBytes } = this.kernel;
    const [ours, theirs] = [
      this.#file((id) => new SocketFile(id, process.name, socketBytes, listener.pid)),
      this.#file((id) => new SocketFile(id, name, socketBytes, process.pid)),
    ];
    [ours.peer, theirs.peer] = [theirs, ours];
    listener.waiting.push(theirs.retain());
    return process.open(ours);
  }

  #accept(process: Process, listener: Fd): Fd | null {
    if (!process.call()) return null;
    const socket = fileOf(listener, ListenerFile).waiting.shift();
    if (socket === undefined) return null;
    const fd = process.open(socket);
    socket.release();
    return fd;
  }

  /** How much of so much goes through in one call. */
  #share(bytes: number): number {
    return bytes > 1 && this.chance(this.kernel.shortTransfers) ? 1 + this.random.below(bytes) : bytes;
  }

  #send(process: Process, fd: Fd, bytes: Uint8Array<ArrayBuffer>, fds: readonly Fd[]): number {
    if (!process.call()) return bytes.length;
    const socket = fileOf(fd, SocketFile), { peer } = socket;
    const files = fds.map((fd) => fileOf(fd, OpenFile));
    if (peer === null) throw new SystemError("send to a socket", Errno.EPIPE);
    const room = Math.min(peer.capacity - peer.inboxBytes, bytes.length);
    const sent = room <= 0 ? 0 : this.#share(room);
    socket.blocked = sent < bytes.length;
    if (socket.blocked) socket.blockedIn = this.step;
    // There is room for more: the sender hears of it, as when the kernel was short of memory.
    if (sent < room) { for (const watch of socket.watches) watch.notify("writable"); }
    if (sent === 0) return 0;
    peer.inbox.push({ bytes: bytes.slice(0, sent), files: files.map((file) => file.retain()) });
    peer.inboxBytes += sent;
    for (const watch of peer.watches) watch.notify("readable");
    return sent;
  }

  #receive(process: Process, fd: Fd, into: Uint8Array<ArrayBuffer>): Received | null {
    if (!process.call()) return null;
    const socket = fileOf(fd, SocketFile);
    if (socket.inbox.length === 0) {
      if (socket.peer !== null) return null;
      if (!socket.reset) return { byteLength: 0, fds: [] };
      socket.reset = false;
      throw new SystemError("receive from a socket", Errno.ECONNRESET);
    }
    const wanted = this.#share(Math.min(into.length, socket.inboxBytes));
    const fds: Fd[] = [];
    let got = 0;
    while (got < wanted && fds.length === 0 && socket.inbox.length > 0) {
      const segment = socket.inbox[0], { files } = segment;
      const part = segment.bytes.subarray(0, wanted - got);
      into.set(part, got);
      got += part.length;
      for (const file of files.splice(0)) {
        fds.push(process.open(file));
        file.release();
      }
      if (part.length === segment.bytes.length) socket.inbox.shift();
      else segment.bytes = segment.bytes.subarray(part.length);
    }
    socket.inboxBytes -= got;
    if (socket.peer?.blocked) { for (const watch of socket.peer.watches) watch.notify("writable"); }
    // What is left is there for the next call, which an edge does not tell of: the reader must ask until there is none.
    return { byteLength: got, fds };
  }
}
