/** Users that were recovered, and whose clients have not come back. */

import type { Host } from "./host.ts";
import { hasEnded, mayBeIn, type ProcessRecord } from "./processes.ts";
import type { Client, User } from "./users.ts";

/** The orphans of one process. */
interface Family {
  readonly process: ProcessRecord;
  readonly users: Set<User>;
  watch: Disposable | null;
}

/** Orphans by process, each of which is watched. One that cannot be is only looked at. */
export class Orphans implements Disposable, Iterable<User> {
  readonly #families = new Map<string, Family>();

  constructor(private readonly host: Host) {}

  add(user: User): void {
    const { info } = user.record, key = keyOf(info);
    let family = this.#families.get(key);
    if (family === undefined) {
      const { processId, processStart, pidNamespace } = info;
      family = { process: { processId, processStart, pidNamespace }, users: new Set(), watch: null };
      this.#families.set(key, family);
    }
    family.users.add(user);
  }

  /** It has come back, or is gone. Does nothing for one that is none. */
  delete(user: User): void {
    const key = keyOf(user.record.info), family = this.#families.get(key);
    if (!family?.users.delete(user) || family.users.size > 0) return;
    family.watch?.[Symbol.dispose]();
    this.#families.delete(key);
  }

  get size(): number {
    return this.#families.values().reduce((sum, { users }) => sum + users.size, 0);
  }

  /** Those of a client that has a token. */
  *of({ pid, token }: Client): Generator<User> {
    for (const { process, users } of this.#families.values()) {
      if (!mayBeIn(this.host, process, pid)) continue;
      for (const user of users) if (user.record.info.clientToken === token) yield user;
    }
  }

  *[Symbol.iterator](): Iterator<User> {
    for (const { users } of this.#families.values()) yield* users;
  }

  /**
   * Those whose process has ended.
   *
   * @param later Called when that of another one does.
   */
  ended(later: () => void): User[] {
    const users: User[] = [];
    for (const family of this.#families.values()) {
      // First held on to, then looked at: it cannot be another one in between.
      family.watch ??= this.#watch(family.process, later);
      if (hasEnded(this.host, family.process)) users.push(...family.users);
    }
    return users;
  }

  #watch({ processId, pidNamespace }: ProcessRecord, ended: () => void): Disposable | null {
    const seen = processId !== 0n && (pidNamespace === 0n || pidNamespace === this.host.pidNamespace);
    return seen ? this.host.watchProcess(Number(processId), ended) : null;
  }

  /** Watches no process until somebody asks again whose has ended. */
  unwatch(): void {
    for (const family of this.#families.values()) {
      family.watch?.[Symbol.dispose]();
      family.watch = null;
    }
  }

  [Symbol.dispose](): void {
    this.unwatch();
    this.#families.clear();
  }
}

function keyOf({ processId, processStart, pidNamespace }: ProcessRecord): string {
  return `${processId}/${processStart}/${pidNamespace}`;
}
