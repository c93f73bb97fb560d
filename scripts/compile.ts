/**
 * Compiles the three programs to executables in `dist/`: `deno task compile [--target TRIPLE]`.
 *
 * `deno compile` embeds a runtime that it downloads once, or takes from `DENORT_BIN`.
 */

const programs = ["server", "shadow", "inspect"];
const root = new URL("..", import.meta.url);

await Deno.mkdir(new URL("dist/", root), { recursive: true });
for (const program of programs) {
  const output = new URL(`dist/subspace-${program}`, root).pathname;
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: [
      "compile",
      "-q",
      "--no-prompt",
      "--allow-ffi",
      ...Deno.args,
      "--output",
      output,
      `cli/${program}.ts`,
    ],
    cwd: root,
  }).spawn().status;
  if (!success) {
    console.error(
      `Cannot compile subspace-${program}: the runtime that deno compile embeds was not to be had. ` +
        "Name a denort binary of the same version in DENORT_BIN.",
    );
    Deno.exit(1);
  }
  const { size } = await Deno.stat(output);
  console.log(`dist/subspace-${program}  ${(size / 2 ** 20).toFixed(1)} MiB`);
}
