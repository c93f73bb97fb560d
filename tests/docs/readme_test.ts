/** What the README says to do is done, and does what it says. */

import assert from "node:assert/strict";
import { sessionsOf } from "../deployment.ts";
import { inRepository, mayRun, Program, uniqueSocket } from "../program.ts";
import { removeTraces } from "../traces.ts";

const mayWrite = Deno.permissions.querySync({ name: "write" }).state === "granted";
const ignore = !mayRun || !mayWrite;

/** The code of the first block of a language, or that has a text in it. */
function block(language: string, text = ""): string {
  const page = Deno.readTextFileSync(inRepository("README.md"));
  for (const [, kind, code] of page.matchAll(/^```(\w*)\n([^]*?)^```/gm)) {
    if (kind === language && code.includes(text)) return code;
  }
  throw new Error(`the README has no such block: ${language} ${text}`);
}

Deno.test({
  name: `the README's program goes on while its server is killed${
    ignore ? " (skipped: needs to run and write)" : ""
  }`,
  ignore,
  async fn() {
    const server = uniqueSocket("server"), shadow = uniqueSocket("shadow");
    const commands = [...block("", "cli/shadow.ts").split("\n"), block("", "cli/inspect.ts").trim()];
    /** A command of the README, on sockets of this test. */
    const start = (script: string) => {
      const command = commands.find((it) => it.includes(script))!;
      const args = command.replace(/ &$/, "").replace("/tmp/subspace_shadow", shadow).split(" ").slice(4);
      const socket = script === "cli/server.ts" ? [`--socket=${server}`] : [`--socket=${shadow}`];
      return Program.deno(script, [...args, ...socket]);
    };
    const folder = await Deno.makeTempDir();
    try {
      const code = block("ts").replace("./mod.ts", new URL("../../mod.ts", import.meta.url).href)
        .replace("connect()", `connect({ socket: ${JSON.stringify(server)} })`);
      await Deno.writeTextFile(`${folder}/temperature.ts`, code);
      await using keeper = start("cli/shadow.ts");
      await keeper.line(/Shadow listening on/);
      await using first = start("cli/server.ts");
      await first.line(/Connected to primary shadow process/);
      const config = ["--no-prompt", "--config", inRepository("deno.json"), "--allow-ffi"];
      const run = ["run", ...config, `${folder}/temperature.ts`];
      await using program = Program.start(Deno.execPath(), run);
      await program.line(/^1 21\.5$/);
      await first.kill("SIGKILL");
      const heard = program.lines.length;
      await program.until("two more", (lines) => lines.length >= heard + 2);
      await using second = start("cli/server.ts");
      await second.line(/Recovered 3 channels from primary shadow \(session_id=\d+\)$/);
      const again = program.lines.length;
      await program.until("two more", (lines) => lines.length >= again + 2);
      assert.deepEqual(program.lines, program.lines.map((_, i) => `${i + 1} 21.5`));
      await using inspector = start("cli/inspect.ts");
      await inspector.line(/^temperature +\d+ +1 +1 /);
      assert.equal((await inspector.status()).code, 0);
      await program.kill();
      await second.kill();
      sessionsOf([second]).forEach((session) => removeTraces(BigInt(session)));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
