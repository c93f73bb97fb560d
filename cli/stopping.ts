/** Being stopped by a signal. */

const signals = ["SIGTERM", "SIGINT"] as const;

/** The signal that asked a program to stop. */
export type StopSignal = typeof signals[number];

/** What a shell shows for a process that a signal ended. */
const exitCodes: Record<StopSignal, number> = { SIGTERM: 143, SIGINT: 130 };

/**
 * Waits for SIGTERM or SIGINT. The next one ends the process at once: whoever sends it does not want to wait for an
 * orderly end.
 */
export function stopSignal(): Promise<StopSignal> {
  return new Promise((resolve) => {
    let asked = false;
    for (const signal of signals) {
      Deno.addSignalListener(signal, () => {
        if (asked) Deno.exit(exitCodes[signal]);
        asked = true;
        resolve(signal);
      });
    }
  });
}
