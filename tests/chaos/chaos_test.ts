import { mayRun } from "../program.ts";
import { runChaos } from "./chaos.ts";

/** In CI, which has two cores and ten minutes; `deno task chaos` takes any number, from any seed. */
const ROUNDS = 200;

Deno.test({
  name: `${ROUNDS} rounds of kills and stops at random lose nothing and leave nothing` +
    (mayRun ? "" : " (skipped: needs permission to run programs)"),
  ignore: !mayRun,
  async fn() {
    console.log(await runChaos(ROUNDS, 1, () => {}));
  },
});
