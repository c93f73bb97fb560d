import { mayRun } from "../program.ts";
import { hasPeers, runStress } from "./stress.ts";

/** In CI; `deno task stress` takes any number. */
const SECONDS = 15;

Deno.test({
  name:
    `${SECONDS} seconds of coming, going and dying, with growing messages, lose, tear and reorder nothing` +
    (mayRun ? "" : " (skipped: needs permission to run programs)"),
  ignore: !mayRun,
  async fn() {
    const seed = Math.floor(Math.random() * 2 ** 31);
    console.log(`seed ${seed}${hasPeers() ? ", with C++ peers" : ""}`);
    console.log(await runStress(SECONDS, seed));
  },
});
