/** Many simulations, shared out among the processors. */

import type { Report, Share } from "./worker.ts";

/** Runs simulations of consecutive seeds. */
export async function simulateMany(firstSeed: number, runs: number): Promise<Report> {
  const threads = Math.max(1, Math.min(navigator.hardwareConcurrency, runs));
  const shares = Array.from({ length: threads }, (_, i): Share => ({
    first: firstSeed + i,
    step: threads,
    count: Math.ceil((runs - i) / threads),
  }));
  const reports = await Promise.all(shares.map(inThread));
  const sum = (of: (report: Report) => number) => reports.reduce((total, report) => total + of(report), 0);
  return {
    runs: sum(({ runs }) => runs),
    steps: sum(({ steps }) => steps),
    kills: sum(({ kills }) => kills),
    acknowledged: sum(({ acknowledged }) => acknowledged),
    failures: reports.flatMap(({ failures }) => failures).sort((a, b) => a.seed - b.seed),
  };
}

function inThread(share: Share): Promise<Report> {
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  return new Promise<Report>((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      const { first, step, count } = share;
      reject(
        new Error(`${event.message} (in one of ${count} runs from seed ${first} on, in steps of ${step})`),
      );
    };
    worker.postMessage(share);
  }).finally(() => worker.terminate());
}
