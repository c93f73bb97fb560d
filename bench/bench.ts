/**
 * Measures, beside the C++ programs where `SUBSPACE_CPP_BIN` names their folder. `deno task bench`.
 *
 *     deno task bench [--quick] [--json] [FILTER]
 *
 * `--quick` takes less time and says less; `--json` prints an object a line; a filter is a part of a line's name.
 */

import { runBenchmark } from "./benchmark.ts";
import { creation } from "./creation.ts";
import { garbage } from "./garbage.ts";
import { oneProcess } from "./one_process.ts";
import { programs } from "./programs.ts";
import { recoveries } from "./recovery.ts";
import { bareMemory, roundTrips } from "./round_trip.ts";
import { canPin, Run } from "./run.ts";
import { streams } from "./stream.ts";
import { heading, json, row } from "./table.ts";

const benchmarks = [
  oneProcess,
  ...streams,
  ...roundTrips,
  bareMemory,
  creation,
  ...recoveries,
  programs,
  garbage,
];

const USAGE = "usage: deno task bench [--quick] [--json] [FILTER]";
const options = new Set(Deno.args.filter((arg) => arg.startsWith("--")));
const filters = Deno.args.filter((arg) => !arg.startsWith("--"));
const asJson = options.delete("--json"), quick = options.delete("--quick");
if (options.size > 0 || filters.length > 1) {
  console.log(USAGE);
  Deno.exit(options.has("--help") ? 0 : 2);
}

await using run = new Run(quick, filters[0] ?? "");
if (!canPin) console.error("taskset is not there: what is said to run on one CPU runs where it likes");
if (!asJson) console.log(heading());
for (const benchmark of benchmarks) {
  if (!benchmark.subjects.some(({ name }) => run.wants(name))) continue;
  if (!asJson && benchmark.title !== undefined) console.log(benchmark.title);
  for (const result of await runBenchmark(benchmark, run)) console.log(asJson ? json(result) : row(result));
}
