/**
 * Makes the three programs in `dist/`, one file each that needs nothing installed, their manual pages, completions and
 * units, and runs them:
 * `deno task compile [--target=TRIPLE] [--runtime=PATH] [--self-extracting]`.
 *
 * `deno compile` embeds a runtime that it downloads once, or takes from `DENORT_BIN`. Where it is not to be had, the
 * executables unpack themselves instead: see `self_extracting.ts`.
 *
 * --target          The machine; default this one. Programs for another one are not run.
 * --runtime         A deno executable for self-extracting ones; default the one that runs this.
 * --self-extracting Do not try `deno compile`.
 */

import { flag, onOff, parseFlags, text } from "../cli/flags.ts";
import { version } from "../cli/version.ts";
import { bundle, runFlags } from "./bundle.ts";
import { writeManuals } from "./manuals.ts";
import { pack, selfExtracting, sha256 } from "./self_extracting.ts";
import { tryOut } from "./try_out.ts";

const programs = ["server", "shadow", "inspect"] as const;
/** By target, the machine as an ELF file names it, and the npm package with Deno for it. */
const targets: Readonly<Record<string, { readonly machine: number; readonly npm: string }>> = {
  "x86_64-unknown-linux-gnu": { machine: 62, npm: "@deno/linux-x64-glibc" },
  "aarch64-unknown-linux-gnu": { machine: 183, npm: "@deno/linux-arm64-glibc" },
};
const here = Deno.build.target;
const root = new URL("..", import.meta.url).pathname;

const { values: { target, runtime, self_extracting } } = parseFlags({
  target: flag({ type: text("TRIPLE"), default: here, description: "" }),
  runtime: flag({ type: text("PATH"), default: "", description: "" }),
  self_extracting: flag({ type: onOff, default: false, description: "" }),
}, Deno.args);
if (!Object.hasOwn(targets, target)) {
  fail(`Cannot compile for ${target}: it is none of ${Object.keys(targets).join(", ")}`);
}

const dist = target === here ? `${root}dist` : `${root}dist/${target}`;
const paths = programs.map((program) => `${dist}/subspace-${program}`);

await Deno.mkdir(dist, { recursive: true });
// deno compile overwrites nothing but its own; who runs an old one keeps it.
for (const path of paths) await removeIfThere(path);
const embedded = !self_extracting && await compileAll();
if (!embedded) await makeSelfExtracting();
await writeSums();
await writeManuals(dist);
for (const path of paths) {
  console.log(`${path.slice(root.length).padEnd(24)} ${mebibytes((await Deno.stat(path)).size)} MiB`);
}
if (target === here) await tryOut(dist);
else console.log(`Not run: this machine is ${here}`);

/** Compiles with `deno compile`; false where it cannot. */
async function compileAll(): Promise<boolean> {
  for (const program of programs) {
    const output = `${dist}/subspace-${program}`;
    const args = [
      "--no-check",
      ...runFlags[program],
      "--target",
      target,
      "--output",
      output,
      `cli/${program}.ts`,
    ];
    const { success, stderr } = await deno(["compile", "--quiet", "--no-prompt", ...args]);
    if (success) continue;
    const [message] = new TextDecoder().decode(stderr).split("Stack backtrace");
    const reason = message.match(/ \d+: (.*)\s*$/)?.[1] ?? message.trim();
    console.log(
      `deno compile has no runtime to embed (${reason}), and DENORT_BIN names none: making executables that unpack themselves`,
    );
    return false;
  }
  return true;
}

async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function makeSelfExtracting(): Promise<void> {
  const { machine, npm } = targets[target];
  if (target !== here && runtime === "") {
    fail(
      `Cannot make programs for ${target}: name a deno executable for it with --runtime; ` +
        `npm pack ${npm}@${Deno.version.deno} brings one`,
    );
  }
  const executable = await Deno.readFile(runtime || Deno.execPath());
  if (machineOf(executable) !== machine) {
    fail(`Cannot make programs for ${target}: ${runtime} is no executable for that machine`);
  }
  const packedRuntime = await pack(executable);
  for (const program of programs) {
    const name = `subspace-${program}`;
    const bytes = selfExtracting({
      name,
      version,
      target,
      flags: runFlags[program],
      program: await pack(await bundle(program).catch((error: Error) => fail(error.message))),
      runtime: packedRuntime,
    });
    await Deno.writeFile(`${dist}/${name}`, bytes, { mode: 0o755 });
  }
}

/** The machine that an ELF file is for; null where it is none. */
function machineOf(bytes: Uint8Array<ArrayBuffer>): number | null {
  const isElf = bytes.length > 20 && new TextDecoder().decode(bytes.subarray(1, 4)) === "ELF";
  return isElf ? new DataView(bytes.buffer).getUint16(18, true) : null;
}

async function writeSums(): Promise<void> {
  const lines = paths.map(async (path) =>
    `${await sha256(await Deno.readFile(path))}  ${path.split("/").at(-1)}\n`
  );
  await Deno.writeTextFile(`${dist}/SHA256SUMS`, (await Promise.all(lines)).join(""));
}

function deno(args: string[]): Promise<Deno.CommandOutput> {
  return new Deno.Command(Deno.execPath(), { args, cwd: root, env: { NO_COLOR: "1" } }).output();
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}

function fail(reason: string): never {
  console.error(reason);
  Deno.exit(1);
}
