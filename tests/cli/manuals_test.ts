import assert from "node:assert/strict";
import { renderCompletion, type Shell } from "../../cli/completion.ts";
import { program as inspect } from "../../cli/inspect.ts";
import { renderManual } from "../../cli/manual.ts";
import { type ProgramDescription, standardFlags } from "../../cli/program.ts";
import { program as server } from "../../cli/server.ts";
import { program as shadow } from "../../cli/shadow.ts";
import { mayRun } from "../program.ts";

const programs: ProgramDescription[] = [server, shadow, inspect];
const shells: Shell[] = ["bash", "zsh", "fish"];

/** Runs a command if this machine has it; undefined where it has not. */
async function pipe(text: string, command: string, ...args: string[]): Promise<string | undefined> {
  if (!mayRun) return undefined;
  try {
    const child = new Deno.Command(command, { args, stdin: "piped", stdout: "piped", stderr: "piped" })
      .spawn();
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
    const { code, stdout, stderr } = await child.output();
    const decoder = new TextDecoder();
    assert.deepEqual([code, decoder.decode(stderr)], [0, ""], `${command} ${args.join(" ")}`);
    return decoder.decode(stdout);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

Deno.test("manual pages and completions name every flag and every verb", () => {
  for (const program of programs) {
    const texts = [
      renderManual(program).replaceAll("\\-", "-"),
      ...shells.map((it) => renderCompletion(program, it)),
    ];
    for (const text of texts) {
      for (const name of Object.keys({ ...program.flags, ...standardFlags })) {
        assert.match(text, new RegExp(`(--|-l )${name}\\b`), `${program.name}: ${name}`);
      }
      for (const { command } of program.verbs ?? []) assert(text.includes(command.split(" ")[0]), command);
    }
  }
});

Deno.test("shells understand their completions, where they are on this machine", async () => {
  for (const program of programs) {
    for (const shell of shells) await pipe(renderCompletion(program, shell), shell, "-n");
  }
});

Deno.test("bash completes flags, their values, and verbs", async () => {
  const script = renderCompletion(inspect, "bash") + renderCompletion(server, "bash");
  const complete = (command: string, ...words: string[]) =>
    pipe(
      `${script}\ncompopt() { :; }\nCOMP_WORDS=(${command} ${words.map((it) => `'${it}'`).join(" ")})\n` +
        `COMP_CWORD=${words.length}\n_${command.replaceAll("-", "_")}\necho "\${COMPREPLY[*]}"\n`,
      "bash",
    );
  const cases: [string, string[], string][] = [
    ["subspace-server", ["--secondary_sh"], "--secondary_shadow_socket="],
    ["subspace-server", ["--log_level", "=", "w"], "warning"],
    ["subspace-server", ["--log_level", "="], "verbose debug info warning error fatal"],
    ["subspace-inspect", ["hea"], "health"],
  ];
  for (const [command, words, expected] of cases) {
    const completed = await complete(command, ...words);
    if (completed !== undefined) assert.equal(completed, expected + "\n");
  }
});

Deno.test("no line of a manual page is taken for a command that is none", () => {
  const macros = new Set([".TH", ".SH", ".TP", ".B"]);
  for (const program of programs) {
    for (const line of renderManual(program).split("\n")) {
      assert(line !== "'" && (!/^[.']/.test(line) || macros.has(line.split(" ")[0])), line);
    }
  }
});
