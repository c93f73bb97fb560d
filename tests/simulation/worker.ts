/** Runs simulations in a thread of its own. */

/// <reference lib="deno.worker" />

import { simulate } from "./simulation.ts";

/** Seeds to be run: so many, from the first on, in such steps. */
export interface Share {
  readonly first: number;
  readonly step: number;
  readonly count: number;
}

/** What came of a share, or of a part of it. */
export interface Report {
  runs: number;
  steps: number;
  kills: number;
  acknowledged: number;
  failures: { seed: number; reason: string }[];
}

/** Failures after which a share ends. */
const FAILURES_MAX = 5;

export async function runShare({ first, step, count }: Share): Promise<Report> {
  const report: Report = { runs: 0, steps: 0, kills: 0, acknowledged: 0, failures: [] };
  for (let i = 0; i < count && report.failures.length < FAILURES_MAX; i++) {
    const seed = first + i * step;
    const { violation, steps, kills, acknowledged } = await simulate(seed);
    report.runs++;
    report.steps += steps;
    report.kills += kills;
    report.acknowledged += acknowledged;
    if (violation !== null) report.failures.push({ seed, reason: violation.message });
  }
  // A rejection that nobody handles is told of only now.
  await new Promise((resolve) => setTimeout(resolve));
  return report;
}

if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  // Where errors come from is shown when a failure is replayed. Here it is a tenth of the time.
  Error.stackTraceLimit = 0;
  self.onmessage = async ({ data }) => self.postMessage(await runShare(data));
}
