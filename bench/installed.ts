/** Our programs as they are installed: each in one file. */

import { bundle, runFlags } from "../scripts/bundle.ts";
import { Program } from "../tests/program.ts";

type Name = Parameters<typeof bundle>[0];

const folder = await Deno.makeTempDir({ prefix: "subspace_bench_" });
const files = new Map<Name, string>();
globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));

/** Makes a program's file, and has Deno keep what it compiles of it, as from a second start on. */
export async function install(name: Name): Promise<void> {
  if (files.has(name)) return;
  const file = `${folder}/${name}.js`;
  await Deno.writeFile(file, await bundle(name));
  files.set(name, file);
  for (let i = 0; i < 2; i++) await startInstalled(name, ["--version"]).status();
}

/** Starts a program that was installed. */
export function startInstalled(name: Name, args: readonly string[]): Program {
  const run = ["run", "--quiet", "--no-prompt", "--no-config", ...runFlags[name]];
  return Program.start(Deno.execPath(), [...run, files.get(name)!, ...args]);
}
