import assert from "node:assert/strict";
import { runInThreads } from "./threads.ts";

/** In CI; `deno task model` takes any number, from any seed. */
const INTERLEAVINGS = 30_000;

const readable = Deno.permissions.querySync({ name: "read" }).state === "granted";
const skipped = readable ? "" : " (skipped: compiles the core, which needs --allow-read)";

/** Loaded late: the compiler of the core asks for permissions at once. */
const loadModel = async () => (await import("./holding_model.ts")).HoldingModel;

Deno.test({
  name:
    `in ${INTERLEAVINGS} interleavings with leases, with several messages held, with the newest and those found by time, ` +
    `and with kills at any step, what is held stays, and nothing is lost${skipped}`,
  ignore: !readable,
  async fn() {
    const { steps, kills, done } = await runInThreads({ model: "holding", first: 1, count: INTERLEAVINGS });
    console.log(`${steps} steps, ${kills} kills`, done);
    for (const [what, times] of Object.entries(done)) assert(times > INTERLEAVINGS / 100, what);
  },
});

/** A fault that the model check has to find: a source of the core, what it says, what it says then, and what is seen. */
const faults: [what: string, file: string, from: string, to: string, seen: RegExp][] = [
  [
    "a slot is reclaimed although its message is held",
    "lease.ts",
    "if (refs & (OWNED | BOTH_COUNTS)) return OUTCOME_NONE;",
    "if (refs & OWNED) return OUTCOME_NONE;",
    /takes slot \d+, which subscriber \d+ holds|is damaged/,
  ],
  [
    "a slot is reclaimed although somebody else has just taken it",
    "lease.ts",
    "if (!take(publisher, slot, refs)) return OUTCOME_NONE;",
    "take(publisher, slot, refs);",
    /takes slot \d+ of publisher \d+|takes slot \d+, which|is damaged|is missing/,
  ],
  [
    "a slot that is given back stays its publisher's",
    "publish.ts",
    "if (atomic.cmpxchg<u64>(slot, mine, 0) == mine) setBit",
    "if (atomic.load<u64>(slot) == mine) setBit",
    /slot \d+ belongs to publisher \d+, which has left/,
  ],
  [
    "a message is found by the time that another one had in its slot",
    "find.ts",
    ", ordinal = atomic.load<u64>(slot, SLOT_ORDINAL);\n" +
    "    if (load<u64>(slot, SLOT_TIMESTAMP) != timestamp || (atomic.load<u64>(slot) & OWNED)) continue;",
    ";\n" +
    "    if (load<u64>(slot, SLOT_TIMESTAMP) != timestamp || (atomic.load<u64>(slot) & OWNED)) continue;\n" +
    "    const ordinal = load<u64>(slot, SLOT_ORDINAL);",
    /finds another message/,
  ],
  [
    "a message that is held is found again",
    "find.ts",
    "if (isSet(slot + SLOT_OWNERS + BITSET_WORDS, load<u32>(subscriber, SUBSCRIBER_STRUCT_ID))) continue;",
    "",
    /holds slot \d+ twice/,
  ],
  [
    "older messages stay unread when the newest is read",
    "read.ts",
    "letGoOlder(subscriber, 0, i - 1, false);",
    "{}",
    /of publisher \d+ after/,
  ],
  [
    "the newest message is not read although it is there",
    "read.ts",
    "for (let i = count; i > 0; i--) {",
    "for (let i = count > 1 ? count - 1 : count; i > 0; i--) {",
    /is not the newest/,
  ],
  [
    "one message more than allowed is held",
    "read.ts",
    "SUBSCRIBER_STRUCT_ACTIVE) >= load<u32>(subscriber, SUBSCRIBER_STRUCT_MAX_ACTIVE)) {\n    store",
    "SUBSCRIBER_STRUCT_ACTIVE) > load<u32>(subscriber, SUBSCRIBER_STRUCT_MAX_ACTIVE)) {\n    store",
    /holds \d+ messages/,
  ],
  [
    "a release does not say that a read waits for it",
    "read.ts",
    "return RELEASE_RELEASED | RELEASE_STARVED;",
    "return RELEASE_RELEASED;",
    /a release says that a read waits for it/,
  ],
];

for (const [what, file, from, to, seen] of faults) {
  Deno.test({
    name: `the model check of what is held finds it if ${what}${skipped}`,
    ignore: !readable,
    async fn() {
      const model = await (await loadModel()).create((name, source) => {
        if (name !== file) return source;
        assert(source.includes(from), `${file} no longer says ${from}`);
        return source.replace(from, to);
      });
      await assert.rejects(async () => {
        for (let seed = 1; seed <= INTERLEAVINGS; seed++) await model.run(seed);
      }, seen);
    },
  });
}
