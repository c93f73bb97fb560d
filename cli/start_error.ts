/** Why a program could not start. */

import { SystemError } from "../ffi/errno.ts";

/**
 * The error that the user is shown.
 *
 * @param beginning In the reference's words: `Error running Subspace server`.
 */
export function startError(beginning: string, error: unknown): Error {
  const reason = error instanceof Error ? error.message : String(error);
  const inUse = error instanceof SystemError && error.code === "EADDRINUSE";
  return new Error(
    `${beginning}: ${reason}${
      inUse ? "; somebody listens there already: stop them, or choose another --socket" : ""
    }`,
  );
}
