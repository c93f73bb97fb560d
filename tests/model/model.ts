/** Runs any number of a model check's interleavings from the command line. */

import { choice, flag, integer } from "../../cli/flags.ts";
import { main, type Program } from "../../cli/program.ts";
import { chosenSeed, seedFlag } from "../chaos/random.ts";
import { runInThreads, type Share } from "./threads.ts";

const flags = {
  of: flag<Share["model"]>({
    type: choice("WHAT", ["core", "holding"]),
    default: "core",
    description: "core: publishing and reading; holding: leases, and several messages held",
  }),
  runs: flag({ type: integer(1, 100_000_000), default: 100_000, description: "How many interleavings" }),
  seed: seedFlag,
};

const program: Program<typeof flags> = {
  name: "model",
  summary:
    "interleaves the lock-free core access by access, with kills at any step, and checks what must hold",
  flags,
  examples: [{ command: "deno task model --of holding --seed 4711 --runs 1", what: "replay one" }],
  exitCodes: { 0: "everything held", 1: "something did not: the seed that replays it is shown" },
  usageCode: 2,
  async run({ of, runs, seed }) {
    const first = chosenSeed(seed);
    console.log(`seeds from ${first}`);
    const { steps, kills, done } = await runInThreads({ model: of, first, count: runs });
    console.log(`${runs} interleavings, ${steps} steps, ${kills} kills: everything held`, done);
    return 0;
  },
};

if (import.meta.main) await main(program, Deno.args);
