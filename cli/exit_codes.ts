/** The exit codes of all programs, in one table. */

/**
 * 2 means "down" to health checks, and a wrong flag must never look like one. The server and the shadow
 * end with 1 after a wrong flag, as programs with Abseil flags do.
 */
export const ExitCode = {
  /** What was asked for was done; a server or a shadow was stopped. */
  ok: 0,
  /** It could not be done, or damage was found. Standard error says why. */
  failure: 1,
  /** `subspace-inspect diff`: there are differences. As of `diff`. */
  different: 1,
  /** `subspace-inspect health`: it works, and somebody should look. */
  degraded: 1,
  /** `subspace-inspect health`: there is no server, or nobody who could tell. */
  down: 2,
  /** The command line of `subspace-inspect` is wrong (EX_USAGE of sysexits.h). */
  usage: 64,
} as const;
