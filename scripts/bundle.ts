/** Our programs as they are installed. */

const root = new URL("..", import.meta.url).pathname;

/**
 * What each program runs with: the permissions that it needs, and of V8 what suits it. Inspection reads and writes the
 * files that it is given, and serves metrics; and it makes much at once, nearly all of which lives to its end, so that
 * collecting garbage early is work in vain.
 */
export const runFlags = {
  server: ["--allow-ffi"],
  shadow: ["--allow-ffi"],
  inspect: [
    "--allow-ffi",
    "--allow-read",
    "--allow-write",
    "--allow-net",
    "--v8-flags=--min-semi-space-size=8",
  ],
} as const;

/**
 * A program and all that it imports in one file, which starts in half the time.
 *
 * LogTape is taken as for browsers: in Deno, as in Node, it would load `node:util` for what our formats do not use.
 *
 * @throws {Error} If it cannot be bundled.
 */
export async function bundle(program: "server" | "shadow" | "inspect"): Promise<Uint8Array<ArrayBuffer>> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bundle", "--quiet", "--platform=deno", "--minify", `cli/${program}.ts`],
    cwd: root,
    env: { NO_COLOR: "1", DENO_CONDITIONS: "browser" },
  }).output();
  if (success) return stdout;
  throw new Error(`Cannot bundle cli/${program}.ts: ${new TextDecoder().decode(stderr)}`);
}
