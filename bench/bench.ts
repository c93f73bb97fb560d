/** Measures, beside the C++ programs where `SUBSPACE_CPP_BIN` names their folder. `deno task bench --help`. */

import { flag, integer, onOff } from "../cli/flags.ts";
import { main, type Program } from "../cli/program.ts";
import { alternatives } from "./alternatives.ts";
import { runBenchmark } from "./benchmark.ts";
import { creation } from "./creation.ts";
import { garbage } from "./garbage.ts";
import { inspector } from "./inspector.ts";
import { oneProcess } from "./one_process.ts";
import { programs } from "./programs.ts";
import { reattachments } from "./reattachment.ts";
import { recoveries } from "./recovery.ts";
import { bareMemory, roundTrips } from "./round_trip.ts";
import { roundRobin } from "./round_robin.ts";
import { canPin, Run } from "./run.ts";
import { stoppedShadow } from "./stopped_shadow.ts";
import { streams } from "./stream.ts";
import { heading, json, row } from "./table.ts";

const benchmarks = [
  oneProcess,
  roundRobin,
  ...streams,
  ...roundTrips,
  bareMemory,
  ...alternatives,
  creation,
  ...recoveries,
  ...reattachments,
  stoppedShadow,
  programs,
  inspector,
  garbage,
];

const flags = {
  quick: flag({ type: onOff, default: false, description: "Take less time, and say less" }),
  rounds: flag({
    type: integer(0, 1000),
    default: 0,
    description: "Rounds of each benchmark; 0 for as many as it takes to see a spread",
  }),
  json: flag({
    type: onOff,
    default: false,
    description: 'Print an object a line: {"name","ours_ns","peer_ns","ratio","spread"}',
  }),
  list: flag({
    type: onOff,
    default: false,
    description: "Print the names of all lines, and measure nothing",
  }),
};

const program: Program<typeof flags> = {
  name: "deno task bench",
  summary: "measures, beside the C++ programs where SUBSPACE_CPP_BIN names their folder",
  operands: "[FILTER...]",
  flags,
  examples: [
    { command: "deno task bench --quick", what: "everything, in a few minutes" },
    {
      command: "deno task bench 'stream 64' --rounds 11",
      what: "the lines with this in their names, thoroughly",
    },
  ],
  exitCodes: { 0: "measured", 1: "a program failed", 2: "wrong flags, or no line of such a name" },
  usageCode: 2,
  async run({ quick, rounds, json: asJson, list }, filters) {
    await using run = new Run({ quick, rounds, filters });
    const wanted = benchmarks.filter(({ subjects }) => subjects.some(({ name }) => run.wants(name)));
    if (wanted.length === 0) {
      console.error(`No line has ${filters.map((it) => `"${it}"`).join(" or ")} in its name; see --list`);
      return 2;
    }
    if (list) {
      for (const { subjects } of wanted) {
        for (const { name } of subjects) if (run.wants(name)) console.log(name);
      }
      return 0;
    }
    if (!canPin) console.error("taskset is not there: what is said to run on one CPU runs where it likes");
    if (!asJson) console.log(heading());
    for (const benchmark of wanted) {
      if (!asJson && benchmark.title !== undefined) console.log(benchmark.title);
      for (const result of await runBenchmark(benchmark, run)) {
        console.log(asJson ? json(result) : row(result));
      }
    }
    return 0;
  },
};

await main(program, Deno.args);
