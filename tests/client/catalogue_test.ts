import assert from "node:assert/strict";
import { cppFolder, inRepository, mayRun, Program } from "../program.ts";
import { catalogue, withoutCounterpart } from "./catalogue.ts";
import { catalogueCases } from "./catalogue_cases.ts";
import { testWithOwnServer } from "./own_server.ts";

testWithOwnServer(catalogueCases);

const readable = Deno.permissions.querySync({ name: "read" }).state === "granted";

/** All code of tests but the catalogue, with titles that are cut over lines put together. */
function* sources(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    if (isDirectory) yield* sources(`${folder}/${name}`);
    else if (name.endsWith(".ts") && name !== "catalogue.ts") {
      yield Deno.readTextFileSync(`${folder}/${name}`);
    }
  }
}

const namesIn = (list: typeof catalogue) => list.flatMap(([, reference]) => reference.split(" "));
const listed = () => [...namesIn(catalogue), ...namesIn(withoutCounterpart)].sort();

Deno.test({
  name: "each test of the reference's client has one of ours, or a reason why not" +
    (readable ? "" : " (skipped: needs permission to read)"),
  ignore: !readable,
  fn() {
    const all = [...sources(inRepository("tests"))].join("\n");
    for (const [ours] of catalogue) assert(all.includes(`"${ours}`), `there is no test: ${ours}`);
    assert.equal(new Set(listed()).size, 197);
    assert.equal(listed().length, 197);
  },
});

const reference = `${cppFolder}/client_test`;
const atHand = mayRun && readable && cppFolder !== undefined &&
  [...Deno.readDirSync(cppFolder)].some(({ name }) => name === "client_test");

Deno.test({
  name: "the catalogue is that of the reference's client" +
    (atHand ? "" : " (skipped: SUBSPACE_CPP_BIN names no folder with client_test)"),
  ignore: !atHand,
  async fn() {
    await using program = Program.start(reference, ["--gtest_list_tests"]);
    await program.status();
    const names = program.lines.filter((line) => line.startsWith("  ")).map((line) => line.trim());
    // One is compiled into another build only.
    assert.deepEqual([...names, "FailedRegistrationRollsBackNumBuffers"].sort(), listed());
  },
});
