import { CoreModel } from "./core_model.ts";

/** `deno run -A tests/model/core_model.ts COUNT SEED` takes any number. */
const INTERLEAVINGS = 100_000;

const readable = Deno.permissions.querySync({ name: "read" }).state === "granted";

Deno.test({
  name:
    `${INTERLEAVINGS} interleavings of the core, with kills at any step, lose, tear, reorder and leak nothing` +
    (readable ? "" : " (skipped: compiles the core, which needs --allow-read)"),
  ignore: !readable,
  async fn() {
    const first = Math.floor(Math.random() * 2 ** 30);
    console.log(`seeds from ${first}: deno run -A tests/model/core_model.ts ${INTERLEAVINGS} ${first}`);
    const model = await CoreModel.create();
    for (let i = 0; i < INTERLEAVINGS; i++) await model.run(first + i);
    console.log(`${model.steps} steps, ${model.kills} kills`);
  },
});
