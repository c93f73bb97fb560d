/**
 * The C library: every symbol that the project calls, bound in one place.
 *
 * Lengths, flags, fds and results are 32-bit wherever the values allow: a 64-bit argument that is not a bigint
 * leaves V8's fast path and costs twenty times as much.
 */

/** The bound symbols. Call them from small hot methods: only optimised callers get the fast path. */
export const libc = bind({
  __errno_location: { parameters: [], result: "pointer" },
  accept4: { parameters: ["i32", "pointer", "pointer", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  clock_gettime: { parameters: ["i32", "pointer"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  epoll_wait_async: {
    name: "epoll_wait",
    parameters: ["i32", "buffer", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  fchmod: { parameters: ["i32", "u32"], result: "i32" },
  fchown: { parameters: ["i32", "u32", "u32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  fcntl_async: { name: "fcntl", parameters: ["i32", "i32", "i32"], result: "i32", nonblocking: true },
  fstat: { parameters: ["i32", "buffer"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  getenv: { parameters: ["buffer"], result: "pointer" },
  getgid: { parameters: [], result: "u32" },
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  getuid: { parameters: [], result: "u32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  mmap_at: { name: "mmap", parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "usize" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  poll: { parameters: ["buffer", "u32", "i32"], result: "i32" },
  pread: { parameters: ["i32", "buffer", "i32", "i64"], result: "i32" },
  read: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  shm_open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  syscall: { parameters: ["i32", "i32", "pointer", "i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "i32"], result: "i32" },
});

let rare: ReturnType<typeof bindRare> | undefined;

/** Symbols that most processes never call, bound when the first of them is: each takes 0.15 ms, of a start as a whole. */
export function rareLibc(): ReturnType<typeof bindRare> {
  return rare ??= bindRare();
}

function bindRare() {
  return bind({
    access: { parameters: ["buffer", "i32"], result: "i32" },
    closedir: { parameters: ["pointer"], result: "i32" },
    getgrnam: { parameters: ["buffer"], result: "pointer" },
    gethostname: { parameters: ["buffer", "i32"], result: "i32" },
    getpwnam: { parameters: ["buffer"], result: "pointer" },
    kill: { parameters: ["i32", "i32"], result: "i32" },
    mremap: { parameters: ["usize", "usize", "usize", "i32", "usize"], result: "usize" },
    opendir: { parameters: ["buffer"], result: "pointer" },
    pipe2: { parameters: ["buffer", "i32"], result: "i32" },
    pwrite: { parameters: ["i32", "buffer", "i32", "i64"], result: "i32" },
    readdir: { parameters: ["pointer"], result: "pointer" },
    rename: { parameters: ["buffer", "buffer"], result: "i32" },
    shm_unlink: { parameters: ["buffer"], result: "i32" },
    socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
    unlink: { parameters: ["buffer"], result: "i32" },
  });
}

function bind<Symbols extends Deno.ForeignLibraryInterface>(symbols: Symbols) {
  return Deno.dlopen("libc.so.6", symbols).symbols;
}

const errnoView = new Int32Array(
  Deno.UnsafePointerView.getArrayBuffer(libc.__errno_location()!, Int32Array.BYTES_PER_ELEMENT),
);

/** The error number of the system call just made, on this thread. Meaningless after a `nonblocking` call. */
export function errno(): number {
  return errnoView[0];
}

const encoder = new TextEncoder();

/** A NUL-terminated copy of a string. Throws a `TypeError` where the string has a NUL of its own. */
export function cstring(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new TypeError(`Cannot pass ${JSON.stringify(text)} to the system: it contains a NUL`);
  }
  return encoder.encode(text + "\0");
}
