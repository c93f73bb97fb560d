import { mayRun } from "../program.ts";
import { runStress } from "./stress.ts";

/** In CI; `deno task stress` takes any number, from any seed. */
const SECONDS = 15;

Deno.test({
  name:
    `${SECONDS} seconds of coming, going and dying, with growing messages, lose, tear and reorder nothing` +
    (mayRun ? "" : " (skipped: needs permission to run programs)"),
  ignore: !mayRun,
  async fn() {
    console.log(await runStress(SECONDS, 1));
  },
});
