import assert from "node:assert/strict";
import { runInThreads } from "./threads.ts";

/** `deno run -A tests/model/core_model.ts COUNT SEED` takes any number. */
const INTERLEAVINGS = 70_000;

const readable = Deno.permissions.querySync({ name: "read" }).state === "granted";

/** Loaded late: the compiler of the core asks for permissions at once. */
const loadModel = async () => (await import("./core_model.ts")).CoreModel;

Deno.test({
  name:
    `${INTERLEAVINGS} interleavings of the core, with kills at any step, lose, tear, reorder and leak nothing` +
    (readable ? "" : " (skipped: compiles the core, which needs --allow-read)"),
  ignore: !readable,
  async fn() {
    const first = Math.floor(Math.random() * 2 ** 30);
    console.log(`seeds from ${first}: deno run -A tests/model/core_model.ts ${INTERLEAVINGS} ${first}`);
    const { steps, kills } = await runInThreads({ model: "core", first, count: INTERLEAVINGS });
    console.log(`${steps} steps, ${kills} kills`);
  },
});

/** Faults that the model check has to find, as the file, what it says, and what it says then. */
const faults: [what: string, file: string, from: string, to: string][] = [
  [
    "a reliable publisher takes slots that are not read",
    "claim.ts",
    "if (refs & (OWNED | BOTH_COUNTS)) return false;",
    "return !(refs & (OWNED | BOTH_COUNTS));",
  ],
  [
    "an unreliable publisher takes slots that are held",
    "claim.ts",
    "if (!(refs & (OWNED | BOTH_COUNTS)) && take(",
    "if (!(refs & OWNED) && take(",
  ],
  [
    "bits are withdrawn when the slot is somebody else's",
    "registry.ts",
    "withdraw(channel, slotId, -1);\n    atomic.store<u64>(slot, 0);",
    "atomic.store<u64>(slot, 0);\n    withdraw(channel, slotId, -1);",
  ],
];

for (const [what, file, from, to] of faults) {
  Deno.test({
    name: `the model check finds it if ${what}` + (readable ? "" : " (skipped: needs --allow-read)"),
    ignore: !readable,
    async fn() {
      const model = await (await loadModel()).create((name, source) => {
        if (name !== file) return source;
        assert(source.includes(from), `${file} no longer says ${from}`);
        return source.replace(from, to);
      });
      await assert.rejects(async () => {
        for (let seed = 1; seed <= INTERLEAVINGS; seed++) await model.run(seed);
      }, /^Error: seed \d+/);
    },
  });
}
