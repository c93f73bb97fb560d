/** What an operator should know first, collected while looking. */

import type { Finding, Process } from "./model.ts";
import type { Surroundings } from "./surroundings.ts";

/** The worst first. */
const order: readonly Finding["kind"][] = ["damage", "dead", "mismatch", "drops"];

/** Damage often comes in hundreds: so many are told of one channel. */
const DAMAGE_PER_CHANNEL_MAX = 4;

/** Collects findings. */
export class Findings {
  readonly #findings: Finding[] = [];

  /** @param channel null for the system as a whole. */
  add(kind: Finding["kind"], channel: string | null, text: string): void {
    this.#findings.push({ kind, channel, text });
  }

  /** Adds what is wrong with a channel's shared memory. */
  addDamage(channel: string, problems: readonly string[]): void {
    for (const problem of problems.slice(0, DAMAGE_PER_CHANNEL_MAX)) this.add("damage", channel, problem);
    const more = problems.length - DAMAGE_PER_CHANNEL_MAX;
    if (more > 0) this.add("damage", channel, `and ${more} more contradictions`);
  }

  /** Adds that messages were dropped, if any were. */
  addDrops(channel: string, drops: number): void {
    if (drops > 0) {
      this.add("drops", channel, `${drops} ${drops === 1 ? "message was" : "messages were"} dropped`);
    }
  }

  /** A user's process; adds that it is gone where it is. null where the user never said which it is. */
  checkProcess(surroundings: Surroundings, pid: bigint, channel: string, who: string): Process | null {
    if (pid === 0n) return null;
    const process = { pid: Number(pid), alive: surroundings.processExists(Number(pid)) };
    if (!process.alive) this.add("dead", channel, `the process of ${who} (${pid}) is gone`);
    return process;
  }

  /** All findings, the worst first. */
  sorted(): Finding[] {
    return this.#findings.toSorted((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
  }
}
