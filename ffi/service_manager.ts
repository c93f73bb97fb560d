/** Telling the service manager how this process is: the protocol of `sd_notify(3)`, without any library. */

import { Fd } from "./fd.ts";
import { cstring, libc } from "./libc.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const PATH_BYTES_MAX = 108;

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

  /** Sends assignments such as `READY=1`, one a line. One that cannot be sent is lost: nobody waits. */
  tell(...assignments: string[]): void {
    if (this.socket === null) return;
    const bytes = new TextEncoder().encode(assignments.join("\n"));
    const { address } = this;
    libc.sendto(
      this.socket.number,
      bytes,
      bytes.length,
      MSG_DONTWAIT | MSG_NOSIGNAL,
      address,
      address.length,
    );
  }

  [Symbol.dispose](): void {
    this.socket?.close();
  }
}
