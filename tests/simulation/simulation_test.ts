/**
 * Server, shadows and clients on a simulated machine: whatever is killed, stopped or slow, in whatever order, all that
 * was promised holds. More runs, and the replay of one: `deno task simulate --help`.
 */

import assert from "node:assert/strict";
import { faults } from "./faults.ts";
import { simulate } from "./simulation.ts";
import { simulateMany } from "./threads.ts";

const RUNS = 10_000;
/** A fault that takes more runs to be found would slip through. */
const RUNS_TO_FIND = 500;

const mayStartWorkers = Deno.permissions.querySync({ name: "read" }).state === "granted";

Deno.test({
  name: `nothing that was promised is broken in ${RUNS} simulated runs (starts workers: needs --allow-read)`,
  ignore: !mayStartWorkers,
  async fn() {
    const { failures, runs } = await simulateMany(1, RUNS);
    const [first] = failures;
    assert(
      first === undefined,
      first && `seed ${first.seed}: ${first.reason}; replay it with: deno task simulate --seed ${first.seed}`,
    );
    assert.equal(runs, RUNS);
  },
});

Deno.test("the same seed makes the same run, step by step", async () => {
  for (let seed = 1; seed <= 8; seed++) {
    const [once, again] = [await simulate(seed, true), await simulate(seed, true)];
    assert(once.lines.length > 100);
    assert.deepEqual(once.lines, again.lines);
    assert.equal((await simulate(seed)).steps, once.steps, "watching changes nothing");
  }
});

for (const { name, symptom, plant } of faults) {
  Deno.test(`the simulator finds ${name}`, async () => {
    const remove = plant();
    try {
      for (let seed = 1; seed <= RUNS_TO_FIND; seed++) {
        const { violation } = await simulate(seed);
        if (violation === null || !symptom.test(violation.message)) continue;
        const again = await simulate(seed, true);
        assert.equal(again.violation?.message, violation.message, "a failure replays");
        return;
      }
    } finally {
      remove();
    }
    assert.fail(`not found in ${RUNS_TO_FIND} runs`);
  });
}
