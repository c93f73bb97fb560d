/** Generates all generated code again and fails if it is not what is checked in: `deno task check-generated`. */

const generated: [task: string, file: string][] = [
  ["proto", "proto/subspace_pb.ts"],
  ["proto", "proto/subspace.ts"],
  ["core", "shm/core_wasm.ts"],
];

const root = new URL("..", import.meta.url);
let stale = 0;
for (const [task, file] of generated) {
  const path = new URL(file, root);
  const before = await Deno.readTextFile(path);
  const { success } = await new Deno.Command(Deno.execPath(), { args: ["task", "-q", task], cwd: root })
    .spawn().status;
  if (!success) Deno.exit(1);
  if (await Deno.readTextFile(path) === before) continue;
  await Deno.writeTextFile(path, before);
  console.error(`${file} is not what \`deno task ${task}\` makes: run it and commit the result.`);
  stale++;
}
if (stale > 0) Deno.exit(1);
