import { mayRun } from "../program.ts";
import { runChaos } from "./chaos.ts";

/** In CI, which has two cores and ten minutes; `deno run -A tests/chaos/chaos.ts ROUNDS SEED` takes any number. */
const ROUNDS = 200;

Deno.test({
  name: `${ROUNDS} kills at random leave the state as it was and lose nothing` +
    (mayRun ? "" : " (skipped: needs permission to run programs)"),
  ignore: !mayRun,
  async fn() {
    const seed = Math.floor(Math.random() * 2 ** 31);
    console.log(`seed ${seed}: deno run -A tests/chaos/chaos.ts ${ROUNDS} ${seed}`);
    console.log(await runChaos(ROUNDS, seed, () => {}));
  },
});
