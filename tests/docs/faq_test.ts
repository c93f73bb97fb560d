import assert from "node:assert/strict";
import { program as server } from "../../cli/server.ts";
import { program as shadow } from "../../cli/shadow.ts";
import { standardFlags } from "../../cli/program.ts";

const root = new URL("../../", import.meta.url);
const ignore = Deno.permissions.querySync({ name: "read" }).state !== "granted";
const test = (name: string, fn: () => void) =>
  Deno.test({ name: name + (ignore ? " (skipped: needs permission to read)" : ""), ignore, fn });

function* sources(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(new URL(folder, root))) {
    if (isDirectory) yield* sources(`${folder}${name}/`);
    else if (name.endsWith(".ts")) yield Deno.readTextFileSync(new URL(folder + name, root));
  }
}

/** All code, with texts that are cut over lines put together. */
function code(): string {
  const folders = ["cli/", "client/", "ffi/", "inspect/", "scripts/", "server/", "shadow/", "shm/", "wire/"];
  return folders.flatMap((folder) => [...sources(folder)]).join("\n").replaceAll(/["`] \+\s*["`]/g, "");
}

test("every error that the FAQ explains is one of the programs'", () => {
  const all = code();
  const entries = [...Deno.readTextFileSync(new URL("docs/faq.md", root)).matchAll(/^### `(.*)`$/gm)];
  assert(entries.length > 30);
  for (const [, text] of entries) {
    // Errors of system calls are put together: "Cannot " and what was tried.
    const isThere = (part: string) => all.includes(part) || all.includes(part.replace(/^Cannot /, ""));
    for (const part of text.split("…")) assert(isThere(part), `"${part}" of: ${text}`);
  }
});

test("every flag that the operating manual names exists", () => {
  const flags = { ...server.flags, ...shadow.flags, ...standardFlags };
  const text = Deno.readTextFileSync(new URL("docs/operating.md", root));
  // useradd, systemctl and compiling have flags of their own.
  const lines = text.split("\n").filter((line) => !/^ {4}(useradd|systemctl|deno task)/.test(line));
  for (const [, name] of lines.join("\n").matchAll(/--([a-z][a-z_]+)/g)) {
    assert(Object.hasOwn(flags, name), `--${name}`);
  }
});

test("the operating manual names every flag", () => {
  const text = Deno.readTextFileSync(new URL("docs/operating.md", root));
  for (const name of Object.keys({ ...server.flags, ...shadow.flags, ...standardFlags })) {
    assert.match(text, new RegExp(`--${name}\\b`));
  }
});
