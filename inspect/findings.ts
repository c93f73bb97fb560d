/** What an operator should know first, collected while looking. */

import type { Finding, Process } from "./model.ts";
import { compareNames } from "./naming.ts";
import type { Surroundings } from "./surroundings.ts";

/** The worst first. */
const order: readonly Finding["kind"][] = ["damage", "dead", "mismatch", "drops"];

/** Damage often comes in hundreds: so many are told of one channel. */
const DAMAGE_PER_CHANNEL_MAX = 4;

/** A process may have users on every channel: so many are named. */
const USERS_PER_PROCESS_MAX = 2;

/** Collects findings. */
export class Findings {
  readonly #findings: Finding[] = [];
  /** By pid: the users that the process was. */
  readonly #dead = new Map<number, string[]>();
  readonly #alive = new Set<number>();

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

  /** A user's process; notes that it is gone where it is. null where the user never said which it is. */
  checkProcess({ processExists }: Surroundings, pid: bigint, user: string): Process | null {
    if (pid === 0n) return null;
    const number = Number(pid);
    if (this.#alive.has(number)) return { pid: number, alive: true };
    const users = this.#dead.get(number);
    if (users === undefined && processExists(number)) {
      this.#alive.add(number);
      return { pid: number, alive: true };
    }
    if (users === undefined) this.#dead.set(number, [user]);
    else users.push(user);
    return { pid: number, alive: false };
  }

  #deaths(): Finding[] {
    return [...this.#dead].sort(([a], [b]) => a - b).map(([pid, users]): Finding => {
      const more = users.length - USERS_PER_PROCESS_MAX;
      const listed = users.slice(0, USERS_PER_PROCESS_MAX).join(", ") + (more > 0 ? ` and ${more} more` : "");
      return { kind: "dead", channel: null, text: `process ${pid} is gone: it was ${listed}` };
    });
  }

  /** All findings, the worst first, and by channel. */
  sorted(): Finding[] {
    return [...this.#findings, ...this.#deaths()].sort((a, b) =>
      order.indexOf(a.kind) - order.indexOf(b.kind) || compareNames(a.channel ?? "", b.channel ?? "")
    );
  }
}
