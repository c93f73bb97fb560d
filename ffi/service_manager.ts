/**
 * Telling the service manager how this process is, and leaving fds with it: the protocols of `sd_notify(3)` and
 * `sd_listen_fds(3)`, without any library.
 */

import { SystemError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { cstring, libc } from "./libc.ts";
import { sendMessage } from "./message.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const PATH_BYTES_MAX = 108;
/** Where the fds begin that a service manager passes. */
const LISTEN_FDS_START = 3;

/** A variable of the environment, without permission of the runtime's; null where it is not set. */
function environment(name: string): string | null {
  const value = libc.getenv(cstring(name));
  return value === null ? null : Deno.UnsafePointerView.getCString(value);
}

/** The service manager that started this process, if any did. */
export class ServiceManager implements Disposable {
  private constructor(
    private readonly socket: Fd | null,
    private readonly address: Uint8Array<ArrayBuffer>,
  ) {}

  /** Finds it by `NOTIFY_SOCKET`; where there is none, nothing that it is told goes anywhere. */
  static find(): ServiceManager {
    const path = new TextEncoder().encode(environment("NOTIFY_SOCKET") ?? "");
    const valid = path.length > 1 && path.length < PATH_BYTES_MAX && (path[0] === 0x2f || path[0] === 0x40);
    const address = new Uint8Array(2 + path.length);
    if (!valid) return new ServiceManager(null, address);
    address[0] = AF_UNIX;
    address.set(path, 2);
    // An abstract name is written with @ for its NUL.
    if (path[0] === 0x40) address[2] = 0;
    const number = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return new ServiceManager(Fd.from(number, "notification socket", "create a socket"), address);
  }

  /** Whether anybody is told. */
  get present(): boolean {
    return this.socket !== null;
  }

  /** From one sign of life to the next, in milliseconds: half of what it allows. null where it expects none. */
  get watchdogPeriodMs(): number | null {
    const microseconds = Number(environment("WATCHDOG_USEC"));
    const pid = environment("WATCHDOG_PID");
    if (!this.present || !(microseconds > 0) || (pid !== null && Number(pid) !== Deno.pid)) return null;
    return microseconds / 2000;
  }

  /**
   * Sends assignments such as `READY=1`, one a line. Never waits.
   *
   * @param fd Sent with them: `FDSTORE=1` leaves it with the manager.
   * @returns Whether they went out. Where they did not, its queue is full, or nobody is there.
   */
  tell(assignments: readonly string[], fd?: Fd): boolean {
    const { socket, address } = this;
    // Each time anew: the manager may have started again, with another socket of that name.
    if (socket === null || libc.connect(socket.number, address, address.length) < 0) return false;
    try {
      const bytes = new TextEncoder().encode(assignments.join("\n"));
      return sendMessage(socket, bytes, fd === undefined ? [] : [fd]) > 0;
    } catch (error) {
      if (error instanceof SystemError) return false;
      throw error;
    }
  }

  /**
   * Takes the fds that it passed to this process, by their names; of several with one name, the first. They are the
   * caller's to close. Once: a second call would take what is somebody else's by then.
   */
  takeFds(): Map<string, Fd> {
    const taken = new Map<string, Fd>();
    const count = Number(environment("LISTEN_FDS"));
    if (Number(environment("LISTEN_PID")) !== Deno.pid || !(count > 0)) return taken;
    const names = (environment("LISTEN_FDNAMES") ?? "").split(":");
    for (let i = 0; i < count; i++) {
      const fd = Fd.adopt(LISTEN_FDS_START + i, "passed");
      fd.setCloseOnExec();
      if (taken.has(names[i] ?? "")) fd.close();
      else taken.set(names[i] ?? "", fd);
    }
    return taken;
  }

  [Symbol.dispose](): void {
    this.socket?.close();
  }
}
