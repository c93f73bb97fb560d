import assert from "node:assert/strict";
import type { Habits } from "./core_model.ts";
import { runInThreads } from "./threads.ts";

/** In CI; `deno task model` takes any number, from any seed. */
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
    const { steps, kills } = await runInThreads({ model: "core", first: 1, count: INTERLEAVINGS });
    console.log(`${steps} steps, ${kills} kills`);
  },
});

/** A fault that the model check has to find: what is changed in a source of the core, or what the actors do. */
interface Fault {
  readonly what: string;
  readonly file?: string;
  readonly from?: string;
  readonly to?: string;
  readonly habits?: Habits;
  /** Where to begin: a little before the first seed that finds it. Default: 1. */
  readonly seed?: number;
}

const faults: Fault[] = [
  {
    what: "a reliable publisher takes slots that are not read",
    file: "reuse.ts",
    from: "if (refs & (OWNED | BOTH_COUNTS)) return false;",
    to: "return !(refs & (OWNED | BOTH_COUNTS));",
  },
  {
    what: "a bit counts that a subscriber has cleared before its first message",
    file: "reuse.ts",
    from: "trusted & bit ? READ : DOUBTED",
    to: "READ",
  },
  {
    what: "an unreliable publisher takes slots that are held",
    file: "claim.ts",
    from: "if (!(refs & (OWNED | BOTH_COUNTS)) && take(",
    to: "if (!(refs & OWNED) && take(",
  },
  {
    what: "bits are withdrawn when the slot is somebody else's",
    file: "registry.ts",
    from: "withdraw(channel, slotId, -1);\n    atomic.store<u64>(slot, 0);",
    to: "atomic.store<u64>(slot, 0);\n    withdraw(channel, slotId, -1);",
    seed: 33_400,
  },
  {
    what: "a list counts as complete though it does not go on from the message read last",
    file: "read.ts",
    from: "(whole && first == next)",
    to: "whole",
    seed: 10_500,
  },
  { what: "a sleeper looks, and then says that it sleeps", habits: { looksFirst: true } },
  { what: "flags are taken down before the eventfds are written", habits: { writesLast: true }, seed: 5_700 },
  {
    what: "the flag of a later sleep is taken down",
    file: "doorbell.ts",
    from:
      "if (word & DOORBELL_WORD_ASLEEP) atomic.cmpxchg<u32>(at, word, word & ~DOORBELL_WORD_ASLEEP, DOORBELL_WORDS);\n" +
      "  return nextSleeper",
    to: "atomic.and<u32>(at, ~DOORBELL_WORD_ASLEEP, DOORBELL_WORDS);\n  return nextSleeper",
  },
  {
    what: "nobody is said to sleep though somebody has just begun to",
    file: "doorbell.ts",
    from: "atomic.cmpxchg<u32>(bell, state, state & ~DOORBELL_STATE_ANYONE, DOORBELL_STATE);",
    to: "atomic.and<u32>(bell, ~DOORBELL_STATE_ANYONE, DOORBELL_STATE);",
  },
  {
    what: "a release does not wake the publishers that wait for it",
    file: "channel.ts",
    from: "next & RELIABLE_COUNT ? RELEASE_RELEASED : RELEASE_RELEASED | RELEASE_UNBLOCKS",
    to: "next & BOTH_COUNTS ? RELEASE_RELEASED | RELEASE_UNBLOCKS : RELEASE_RELEASED",
  },
];

for (const { what, file, from = "", to = "", habits, seed = 1 } of faults) {
  Deno.test({
    name: `the model check finds it if ${what}` + (readable ? "" : " (skipped: needs --allow-read)"),
    ignore: !readable,
    async fn() {
      const model = await (await loadModel()).create((name, source) => {
        if (name !== file) return source;
        assert(source.includes(from), `${file} no longer says ${from}`);
        return source.replace(from, to);
      }, habits);
      await assert.rejects(async () => {
        for (let i = 0; i < INTERLEAVINGS; i++) await model.run(seed + i);
      }, /^Error: seed \d+/);
    },
  });
}
