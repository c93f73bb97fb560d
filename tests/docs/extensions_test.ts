import assert from "node:assert/strict";

const root = new URL("../../", import.meta.url);
const ignore = Deno.permissions.querySync({ name: "read" }).state !== "granted";
const suffix = ignore ? " (skipped: needs permission to read)" : "";

const read = (path: string) => Deno.readTextFileSync(new URL(path, root));

/** `Message.field number` of all fields from 1000 on. */
function* extensions(): Generator<string> {
  let message = "";
  for (const line of read("proto/subspace.proto").split("\n")) {
    message = /^message (\w+) \{/.exec(line)?.[1] ?? message;
    const [, name, number] = /^ +(?:repeated )?[\w.]+ (\w+) = (\d+);/.exec(line) ?? [];
    if (Number(number) >= 1000) yield `${message}.${name} ${number}`;
  }
}

Deno.test({
  name: "the page of extensions has every field of ours, with its number, and no other" + suffix,
  ignore,
  fn() {
    const page = [...read("docs/extensions.md").matchAll(/^\| `(\w+\.\w+)` \| (\d+) \|/gm)];
    assert.deepEqual(page.map(([, name, number]) => `${name} ${number}`).sort(), [...extensions()].sort());
    assert(page.length > 10);
  },
});

Deno.test({
  name: "the page of extensions has every counter" + suffix,
  ignore,
  fn() {
    const sources = ["server/counters.ts", "shadow/counters.ts", "wire/counters.ts"].map(read).join("\n");
    const counted = new Set([...sources.matchAll(/counter(?:sBy)?\("(\w+)"/g)].map(([, name]) => name));
    const table = read("docs/extensions.md").split("## Counters")[1];
    const rows = table.split("\n").filter((line) => line.startsWith("| `")).map((line) => line.split("|")[1]);
    const explained = rows.flatMap((cell) => [...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name));
    assert.deepEqual(explained.sort(), [...counted].sort());
    const metrics = read("inspect/metrics.ts");
    for (const name of counted) assert(metrics.includes(`  ${name}: "`), `${name} has no help`);
  },
});
