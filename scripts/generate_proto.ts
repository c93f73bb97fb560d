/**
 * Generates `proto/subspace_pb.ts` (types, and descriptors for tests) and from it `proto/subspace.ts` (tables for
 * `proto/message.ts`) out of `proto/subspace.proto`: `deno task proto`. Needs no network once cached.
 */

const root = new URL("..", import.meta.url).pathname;

const template = {
  version: "v2",
  plugins: [{
    local: [Deno.execPath(), "run", "-A", "npm:@bufbuild/protoc-gen-es@2.17.0"],
    out: "proto",
    opt: ["target=ts", "import_extension=none"],
  }],
};

const { code } = await new Deno.Command(Deno.execPath(), {
  args: [
    "run",
    "-A",
    "npm:@bufbuild/buf@1.72.0",
    "generate",
    "proto",
    "--template",
    JSON.stringify(template),
  ],
  cwd: root,
}).output();
if (code !== 0) Deno.exit(code);
const { writeTables } = await import("./generate_tables.ts");
await writeTables();
