/** What a program refused, counted by reason, and how often it says so. No I/O. */

/** Why something was refused. */
export type RefusalReason =
  /** Who connected may not. */
  | "access"
  /** Who connected may read, but not write. */
  | "write_access"
  /** As many are connected as may be. */
  | "connections"
  /** No fd is left. */
  | "fds"
  /** A message is longer than may be, or carries more fds. */
  | "frame"
  /** What is sent is not the protocol. */
  | "protocol"
  /** A peer has not taken what was sent to it in time. */
  | "stalled"
  /** A second server wants to write. */
  | "second_writer"
  /** A request asks for what cannot be: the client was told why. */
  | "request";

/** Lines that may come at once before they are counted instead. */
const BURST = 10;
/** One more line is allowed each so often. */
const PERIOD_NS = 1_000_000_000n;

/** Whether a refusal is to be logged, and how many before it were not. */
export interface Verdict {
  readonly log: boolean;
  /** Refusals for the same reason since the last line. */
  readonly unsaid: number;
}

interface Tally {
  total: number;
  unsaid: number;
  /** Lines that may still come at once. */
  credit: number;
  /** When credit was last added. */
  refilledNs: bigint;
}

/** Refusals of one program. */
export class Refusals {
  readonly #tallies = new Map<RefusalReason, Tally>();

  /** Counts one. At most ten lines at once, and one a second: who refuses a flood must not drown in its own log. */
  count(reason: RefusalReason, nowNs: bigint): Verdict {
    const tally = this.#tallies.get(reason) ?? { total: 0, unsaid: 0, credit: BURST, refilledNs: nowNs };
    this.#tallies.set(reason, tally);
    tally.total++;
    const periods = (nowNs - tally.refilledNs) / PERIOD_NS;
    if (periods > 0n) {
      tally.credit = Math.min(BURST, tally.credit + Number(periods));
      tally.refilledNs += periods * PERIOD_NS;
    }
    if (tally.credit === 0) {
      tally.unsaid++;
      return { log: false, unsaid: tally.unsaid };
    }
    tally.credit--;
    const { unsaid } = tally;
    tally.unsaid = 0;
    return { log: true, unsaid };
  }

  /** Adds those that another program counted, without a word. */
  add(reason: RefusalReason, count: number): void {
    const tally = this.#tallies.get(reason);
    if (tally !== undefined) tally.total += count;
    else this.#tallies.set(reason, { total: count, unsaid: 0, credit: BURST, refilledNs: 0n });
  }

  /** How many there were for a reason. */
  of(reason: RefusalReason): number {
    return this.#tallies.get(reason)?.total ?? 0;
  }

  /** By reason, how many there were; only those that happened. */
  totals(): Record<string, number> {
    return Object.fromEntries([...this.#tallies].map(([reason, { total }]) => [reason, total]));
  }
}

/** What to put behind a logged refusal: ` (and 12 more)`, or nothing. */
export function unsaidText({ unsaid }: Verdict): string {
  return unsaid === 0 ? "" : ` (and ${unsaid} more since the last such line)`;
}
