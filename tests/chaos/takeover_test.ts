import { mayRun } from "../program.ts";
import { runTakeovers } from "./takeover.ts";

/** In CI, which has two cores and ten minutes; `deno task takeovers` takes any number, from any seed. */
const ROUNDS = 5;

Deno.test({
  name:
    `${ROUNDS} takeovers in which a server is stopped or killed at random leave one that serves, and lose nothing` +
    (mayRun ? "" : " (skipped: needs permission to run programs)"),
  ignore: !mayRun,
  async fn() {
    console.log(await runTakeovers(ROUNDS, 1, () => {}));
  },
});
