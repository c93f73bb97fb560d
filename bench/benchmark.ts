/** What a benchmark is: rounds of the same work by ours and by what it is compared with, one after the other. */

import type { Run } from "./run.ts";

/** Who does the work: ours, or what it is compared with. */
export type Side = "ours" | "peer";

/** One line of the table. */
export interface Subject {
  readonly name: string;
  /** What the figures are. Default: nanoseconds. */
  readonly unit?: "ns" | "bytes" | "count";
  /** What `ours / peer` is to be at the most. */
  readonly goal?: number;
  /** Why there is nothing to compare it with, where there never is. */
  readonly alone?: string;
}

/** Figures of one round, by the name of the subject. */
export type Figures = Record<string, number>;

/** A group of subjects that are measured together. */
export interface Benchmark {
  /** Printed above it; none where it goes on with what the one before began. */
  readonly title?: string;
  readonly subjects: readonly Subject[];
  /** Rounds of a full run. */
  readonly rounds: number;
  /** What ours is compared with. Default: the C++ programs. */
  readonly peer?: string;
  prepare(run: Run): Promise<Prepared>;
}

/** A benchmark whose processes run. */
export interface Prepared extends AsyncDisposable {
  /** Why the peer is not measured; null where it is. */
  readonly withoutPeer: string | null;
  /** One round. */
  measure(side: Side): Promise<Figures>;
}

/** A subject with all that was measured of it. */
export interface Result {
  readonly subject: Subject;
  readonly ours: number;
  /** null: not measured, for this reason. */
  readonly peer: number | null;
  readonly reason: string | null;
  /** Median of ours / peer of the rounds; null where the peer was not measured. */
  readonly ratio: number | null;
  /** Of the ratios; of our own figures where there are none. */
  readonly spread: readonly [least: number, greatest: number];
}

/**
 * Runs a benchmark: ours and the peer by turns, in an order that changes from round to round, so that what the machine
 * does besides hits both alike.
 */
export async function runBenchmark(benchmark: Benchmark, run: Run): Promise<Result[]> {
  await using prepared = await benchmark.prepare(run);
  const sides: Side[] = prepared.withoutPeer === null ? ["ours", "peer"] : ["ours"];
  const rounds: Record<Side, Figures[]> = { ours: [], peer: [] };
  for (let round = 0, count = run.rounds(benchmark.rounds); round < count; round++) {
    for (const side of round % 2 === 0 ? sides : sides.toReversed()) {
      rounds[side].push(await prepared.measure(side));
    }
  }
  return benchmark.subjects.filter(({ name }) => run.wants(name)).map((subject) =>
    summarize(subject, rounds, prepared.withoutPeer)
  );
}

function summarize(subject: Subject, rounds: Record<Side, Figures[]>, withoutPeer: string | null): Result {
  const ours = rounds.ours.map((figures) => figures[subject.name]);
  const reason = subject.alone ?? withoutPeer;
  if (reason !== null) {
    const spread = [Math.min(...ours), Math.max(...ours)] as const;
    return { subject, ours: median(ours), peer: null, reason, ratio: null, spread };
  }
  const peer = rounds.peer.map((figures) => figures[subject.name]);
  const ratios = ours.map((figure, i) => figure / peer[i]);
  return {
    subject,
    ours: median(ours),
    peer: median(peer),
    reason,
    ratio: median(ratios),
    spread: [Math.min(...ratios), Math.max(...ratios)],
  };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b), middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
