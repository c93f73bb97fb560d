/** Simulates many deployments from the command line, or replays one and shows what happened. */

import { typeFlag } from "type-flag";
import { simulate } from "../tests/simulation/simulation.ts";
import { simulateMany } from "../tests/simulation/threads.ts";

const HELP = `Simulate server, shadows and clients that are killed, stopped and slow.

Usage: deno task simulate [--runs N] [--seed S]

  --runs N   Runs, of consecutive seeds. Default: 1, or 10000 without --seed
  --seed S   The first seed. One run alone is shown step by step. Default: 1
  --help     Show this help

Exit status: 0 if all that was promised held, 1 if not, 2 for bad usage.`;

function wholeNumber(text: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number > 0 && number <= 0xffff_ffff) return number;
  console.error(`Cannot use ${text}: a whole number from 1 on is needed; see --help`);
  Deno.exit(2);
}

const { flags, unknownFlags, _: rest } = typeFlag(
  { runs: wholeNumber, seed: wholeNumber, help: Boolean },
  [...Deno.args],
);
if (flags.help) {
  console.log(HELP);
  Deno.exit(0);
}
if (Object.keys(unknownFlags).length > 0 || rest.length > 0) {
  console.error(
    `Cannot use ${[...Object.keys(unknownFlags).map((flag) => `--${flag}`), ...rest].join(" ")}; see --help`,
  );
  Deno.exit(2);
}

const { seed = 1, runs = flags.seed === undefined ? 10_000 : 1 } = flags;
if (runs === 1) {
  const { lines, violation } = await simulate(seed, true);
  console.log(lines.join("\n"));
  console.log(violation === null ? `Seed ${seed}: everything held` : `Seed ${seed}: ${violation.message}`);
  Deno.exit(violation === null ? 0 : 1);
}
const start = performance.now();
const report = await simulateMany(seed, runs);
const seconds = ((performance.now() - start) / 1000).toFixed(1);
for (const { seed, reason } of report.failures) console.log(`Seed ${seed}: ${reason}`);
console.log(
  `${report.runs} runs in ${seconds} s: ${report.steps} steps, ${report.kills} kills, ` +
    `${report.acknowledged} users acknowledged, ${report.failures.length} failures`,
);
Deno.exit(report.failures.length === 0 ? 0 : 1);
