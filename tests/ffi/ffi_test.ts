import assert from "node:assert/strict";
import { monotonicNs } from "../../ffi/clock.ts";
import { Errno, SystemError } from "../../ffi/errno.ts";
import { createEventFd, drain, signal } from "../../ffi/eventfd.ts";
import { duplicateAll, Fd } from "../../ffi/fd.ts";
import { cstring, libc } from "../../ffi/libc.ts";
import { mapFixed, Mapping, PAGE_BYTES, unmapFixed } from "../../ffi/mapping.ts";
import { createMemory, openNamed, truncate, unlinkNamed } from "../../ffi/memory_object.ts";
import { createPacketPipe, readInt32, writeInt32 } from "../../ffi/pipe.ts";
import { pollSync } from "../../ffi/poll.ts";
import { hostName, processExists, uid } from "../../ffi/process.ts";
import { accept, connectAbstract, listenAbstract, peerCredentials } from "../../ffi/unix_socket.ts";
import { withBalancedFds } from "../open_fds.ts";

const F_GETFD = 1;
const FD_CLOEXEC = 1;

let names = 0;
function uniqueName(): string {
  return `subspace_test_${Deno.pid}_${monotonicNs()}_${names++}`;
}

Deno.test("a system error names the error, what was tried and on what", () => {
  assert.throws(() => connectAbstract("nobody/listens/here"), (error) => {
    assert(error instanceof SystemError);
    assert.equal(error.code, "ECONNREFUSED");
    assert.equal(error.message, "Cannot connect to nobody/listens/here: ECONNREFUSED");
    return true;
  });
});

Deno.test("a list of fds is duplicated as a whole or not at all", () =>
  withBalancedFds(() => {
    using fd = createEventFd();
    const gone = createEventFd();
    gone.close();
    assert.throws(() => duplicateAll([fd, fd, gone]));
    for (const duplicate of duplicateAll([fd, fd])) {
      assert.equal(duplicate.stat().inode, fd.stat().inode);
      duplicate.close();
    }
  }));

Deno.test("an fd closes once and cannot be used afterwards", () =>
  withBalancedFds(() => {
    const fd = createEventFd();
    using copy = fd.duplicate();
    assert.notEqual(fd.number, copy.number);
    assert.equal(fd.stat().inode, copy.stat().inode);
    fd.close();
    fd.close();
    assert(fd.closed);
    assert.throws(() => fd.number, /Cannot use eventfd: its fd is closed/);
    signal(copy.number);
    assert(drain(copy.number));
  }));

Deno.test("everything that is created closes when a program is executed", () => {
  using memory = createMemory("cloexec", 4096);
  using eventFd = createEventFd();
  using copy = eventFd.duplicate();
  using listener = listenAbstract(uniqueName());
  const [read, write] = createPacketPipe();
  for (const fd of [memory, eventFd, copy, listener, read, write]) {
    assert.equal(libc.fcntl(fd.number, F_GETFD, 0), FD_CLOEXEC, fd.kind);
  }
  read.close();
  write.close();
});

Deno.test("two mappings of one memory object show the same bytes", () =>
  withBalancedFds(() => {
    using fd = createMemory("shared", 8192);
    using a = Mapping.map(fd, 8192);
    using b = Mapping.map(fd, 8192, { writable: false });
    a.view.setUint32(4096, 0xfeedface, true);
    assert.equal(b.view.getUint32(4096, true), 0xfeedface);
  }));

Deno.test("memory that the server creates can neither shrink nor grow", () => {
  using fd = createMemory("sealed", 4096);
  assert.throws(() => truncate(fd, 0), /EPERM/);
  assert.throws(() => truncate(fd, 8192), /EPERM/);
});

Deno.test("views of a mapping are empty once it is unmapped", () => {
  using fd = createMemory("detached", 4096);
  const mapping = Mapping.map(fd, 4096);
  const view = new Uint8Array(mapping.buffer, 16, 16);
  mapping.unmap();
  mapping.unmap();
  assert.equal(view.length, 0);
  assert.equal(mapping.buffer.byteLength, 0);
  assert.throws(() => mapping.pointer(), /unmapped/);
});

Deno.test("mapping more than a file has is refused instead of a crash later", () => {
  using fd = createMemory("short", 4096);
  assert.throws(() => Mapping.map(fd, 4097), /Cannot map 4097 bytes of shared memory: the file has 4096/);
  for (const bytes of [0, -1, 1.5, NaN]) assert.throws(() => Mapping.map(fd, bytes), RangeError);
});

Deno.test("a part of a WebAssembly memory can be made shared and private again", () => {
  using fd = createMemory("aliased", PAGE_BYTES);
  using outside = Mapping.map(fd, PAGE_BYTES);
  const memory = new WebAssembly.Memory({ initial: 2, maximum: 2 });
  const bytes = new Uint8Array(memory.buffer);
  const base = Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes));
  const at = PAGE_BYTES * 3;
  mapFixed(base + BigInt(at), fd, PAGE_BYTES);
  bytes[at + 5] = 42;
  assert.equal(outside.bytes[5], 42);
  unmapFixed(base + BigInt(at), PAGE_BYTES);
  assert.equal(bytes[at + 5], 0);
  bytes[at + 5] = 1;
  assert.equal(outside.bytes[5], 42);
});

Deno.test("a named object is created once, opened by others, and gone after unlinking", () =>
  withBalancedFds(() => {
    const name = uniqueName();
    try {
      assert.equal(openNamed(name), null);
      using created = openNamed(name, { create: true });
      assert(created !== null);
      assert.equal(openNamed(name, { create: true }), null);
      truncate(created, 100);
      using opened = openNamed(name, { writable: false });
      assert.equal(opened?.stat().bytes, 100);
      assert(unlinkNamed(name));
    } finally {
      assert(!unlinkNamed(name));
    }
  }));

Deno.test("names with a NUL are refused before the system truncates them", () => {
  assert.throws(() => cstring("a\0b"), TypeError);
  assert.throws(() => listenAbstract("a\0b"), TypeError);
  assert.throws(() => listenAbstract(""), TypeError);
});

Deno.test("a packet pipe delivers ids one by one and drops what nobody reads", () =>
  withBalancedFds(() => {
    const [read, write] = createPacketPipe();
    assert.equal(readInt32(read.number), null);
    let accepted = 0;
    while (accepted < 100_000 && writeInt32(write.number, accepted)) accepted++;
    assert(accepted >= 16 && accepted < 100_000, `${accepted}`);
    for (let id = 0; id < accepted; id++) assert.equal(readInt32(read.number), id);
    read.close();
    assert.equal(writeInt32(write.number, 1), false, "a reader that is gone is no error and no signal");
    write.close();
  }));

Deno.test("poll tells which fds are ready and gives up in time", () => {
  using a = createEventFd();
  using b = createEventFd();
  assert.deepEqual(pollSync([a.number, b.number], 0), []);
  signal(b.number);
  assert.deepEqual(pollSync([a.number, b.number], -1), [b.number]);
  assert(drain(b.number));
  assert(!drain(b.number));
});

Deno.test("the peer of a connection is known", () =>
  withBalancedFds(() => {
    const name = uniqueName();
    using listener = listenAbstract(name);
    assert.equal(accept(listener), null);
    using client = connectAbstract(name);
    using server = accept(listener);
    assert(server !== null);
    assert.deepEqual(peerCredentials(server).pid, Deno.pid);
    assert.deepEqual(peerCredentials(client).uid, uid());
  }));

Deno.test("an abstract name belongs to one listener, and names are padded to the end", () => {
  const name = uniqueName();
  using _listener = listenAbstract(name);
  assert.throws(() => listenAbstract(name), /EADDRINUSE/);
  using _longer = listenAbstract(name + "x");
  const long = name + "y".repeat(200);
  using _long = listenAbstract(long);
  using _client = connectAbstract(long.slice(0, 106));
});

Deno.test("processes that exist are told from those that don't", () => {
  assert(processExists(Deno.pid));
  assert(processExists(1), "a process that may not be signalled exists");
  for (const pid of [0, -1, 0x7fff_fffe, 1.5, NaN, 2 ** 40]) assert(!processExists(pid), `${pid}`);
});

Deno.test("the clock never goes back, and the machine has a name", () => {
  const before = monotonicNs();
  assert(monotonicNs() >= before);
  assert(hostName().length > 0);
});

Deno.test("only open descriptors are adopted", () => {
  assert.throws(() => Fd.adopt(-1, "nothing"), RangeError);
  assert.throws(() => Fd.from(libc.close(-1), "nothing", "close nothing"), (error) => {
    return error instanceof SystemError && error.errno === Errno.EBADF;
  });
});
