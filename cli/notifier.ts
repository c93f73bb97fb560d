/** Telling whoever started a program how it is, through a file descriptor that was inherited from them. */

import { SystemError } from "../ffi/errno.ts";
import { Fd } from "../ffi/fd.ts";
import { writeInt64 } from "../ffi/pipe.ts";

/** Tells numbers. */
export interface Notifier extends Disposable {
  notify(notice: bigint): void;
}

const silent: Notifier = { notify() {}, [Symbol.dispose]() {} };

/**
 * @param fdNumber -1 for nobody to tell.
 * @throws {Error} If the number is no open descriptor.
 */
export function openNotifier(fdNumber: number): Notifier {
  if (fdNumber < 0) return silent;
  const fd = Fd.adopt(fdNumber, "notification");
  try {
    fd.stat();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new Error(`Cannot use --notify_fd=${fdNumber}: it is no open file descriptor (${error.code})`);
  }
  return {
    notify: (notice) => void writeInt64(fd.number, notice),
    [Symbol.dispose]: () => fd.close(),
  };
}
