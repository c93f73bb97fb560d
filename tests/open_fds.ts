/** Counting this process's open fds, without permission to read `/proc`. */

import { libc } from "../ffi/libc.ts";
import { reactor } from "../ffi/reactor.ts";

const F_GETFD = 1;
/** Higher than any fd that the tests open. */
const FD_NUMBERS_MAX = 8192;

/** The numbers of all fds that are open. */
export function openFds(): number[] {
  return Array.from({ length: FD_NUMBERS_MAX }, (_, i) => i).filter((i) => libc.fcntl(i, F_GETFD, 0) >= 0);
}

/**
 * Runs something and throws if it leaves more or fewer fds open than it found.
 *
 * A difference is looked at again until it is gone or time is up: other parts of the process close fds late.
 */
export async function withBalancedFds(run: () => Promise<void> | void): Promise<void> {
  reactor(); // Its fds stay open for good.
  const before = openFds();
  await run();
  for (let left = 200; left > 0 && openFds().length !== before.length; left--) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const after = openFds();
  const leaked = after.filter((fd) => !before.includes(fd));
  const lost = before.filter((fd) => !after.includes(fd));
  if (after.length !== before.length) {
    throw new Error(
      `fds are not balanced: ${leaked.length} leaked (${leaked}), ${lost.length} lost (${lost})`,
    );
  }
}
