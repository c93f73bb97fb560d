import assert from "node:assert/strict";
import { pack, selfExtracting } from "../../scripts/self_extracting.ts";
import { mayRun } from "../program.ts";

/** Stands for the runtime: says how it was started. */
const RUNTIME = `#!/bin/sh
[ "$1" = --version ] && exit 0
while [ "\${1#--}" != "$1" ] || [ "$1" = run ]; do shift; done
file=$1; shift
printf '%s|' "$(/bin/cat "$file")" "$DENO_DIR" "$PATH" "$@"
`;
const PROGRAM = "program";

interface Scene {
  readonly folder: string;
  readonly path: string;
  run(env: Record<string, string>, ...args: string[]): Promise<{ code: number; out: string; error: string }>;
}

/** A test with an executable in a folder of its own. */
function test(name: string, fn: (scene: Scene) => Promise<void>): void {
  Deno.test({
    name: name + (mayRun ? "" : " (skipped: needs permission to run)"),
    ignore: !mayRun,
    fn: async () => {
      const folder = await Deno.makeTempDir({ prefix: "subspace test " });
      try {
        const path = `${folder}/a program`;
        const [program, runtime] = await Promise.all(
          [PROGRAM, RUNTIME].map((text) => pack(new TextEncoder().encode(text))),
        );
        const parts = {
          name: "a program",
          version: "1",
          target: "x",
          flags: ["--allow-ffi"],
          program,
          runtime,
        };
        await Deno.writeFile(path, selfExtracting(parts), { mode: 0o755 });
        await fn({
          folder,
          path,
          run: async (env, ...args) => {
            const { code, stdout, stderr } = await new Deno.Command(path, { args, env, clearEnv: true })
              .output();
            const decoder = new TextDecoder();
            return { code, out: decoder.decode(stdout), error: decoder.decode(stderr) };
          },
        });
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

test("it unpacks itself with an empty PATH and HOME, once, and passes arguments on", async ({ folder, run }) => {
  const env = { PATH: "", HOME: "", XDG_RUNTIME_DIR: `${folder}/run` };
  const cache = `${folder}/run/subspace`;
  const expected = { code: 0, out: `${PROGRAM}|${cache}/deno||one|a  "b|`, error: "" };
  assert.deepEqual(await run(env, "one", 'a  "b'), expected);
  assert.equal((await Deno.stat(cache)).mode! & 0o777, 0o700);
  const before = [...Deno.readDirSync(cache)].map((
    { name },
  ) => [name, Deno.statSync(`${cache}/${name}`).ino]);
  assert.equal(before.length, 2);
  assert.deepEqual(await run(env, "one", 'a  "b'), expected);
  assert.deepEqual(
    [...Deno.readDirSync(cache)].map(({ name }) => [name, Deno.statSync(`${cache}/${name}`).ino]),
    before,
  );
});

test("many may start at once", async ({ folder, run }) => {
  const env = { SUBSPACE_CACHE: `${folder}/cache` };
  const outcomes = await Promise.all(Array.from({ length: 8 }, () => run(env)));
  for (const { code, error } of outcomes) assert.deepEqual([code, error], [0, ""]);
  assert.equal([...Deno.readDirSync(`${folder}/cache`)].length, 2);
});

test("one that was cut or changed does not run, and says so", async ({ folder, path, run }) => {
  const env = { SUBSPACE_CACHE: `${folder}/cache`, XDG_RUNTIME_DIR: folder };
  const whole = await Deno.readFile(path);
  const cut = whole.slice(0, whole.length - 20), changed = whole.slice();
  changed[whole.length - 30] ^= 1;
  for (const bytes of [cut, changed]) {
    // Nothing is left to unpack to but folders of this test: the one in /tmp is not tried for want of id.
    await Deno.writeFile(
      path,
      new TextEncoder().encode(
        new TextDecoder("latin1").decode(bytes.slice(0, 4096))
          .replace("/tmp/subspace-$(id -u)", ""),
      ),
    );
    await Deno.writeFile(path, new Uint8Array(4096 - (await Deno.stat(path)).size).fill(10), {
      append: true,
    });
    await Deno.writeFile(path, bytes.slice(4096), { append: true });
    const { code, out, error } = await run(env);
    assert.deepEqual([code, out], [1, ""]);
    assert.match(
      error,
      /^Cannot start a program: it is damaged \(download it again\), or there is no room in /,
    );
    const names = [...Deno.readDirSync(`${folder}/cache`)].map(({ name }) => name);
    assert.equal(names.length, 1, `only the sound part: ${names}`);
  }
});

test("a folder that is not the user's own, or a link to another, is not used", async ({ folder, run }) => {
  await Deno.mkdir(`${folder}/elsewhere`);
  await Deno.symlink(`${folder}/elsewhere`, `${folder}/link`);
  const { code, out } = await run({
    PATH: "",
    SUBSPACE_CACHE: `${folder}/link`,
    XDG_CACHE_HOME: `${folder}/good`,
  });
  assert.equal(code, 0);
  assert.equal(out, `${PROGRAM}|${folder}/good/subspace/deno||`);
  assert.deepEqual([...Deno.readDirSync(`${folder}/elsewhere`)], []);
});
