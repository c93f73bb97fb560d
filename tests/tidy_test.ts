/** What holds for the whole tree: the architecture's drawing stays true, and the house stays tidy. */

import assert from "node:assert/strict";

const root = new URL("..", import.meta.url);
const readable = Deno.permissions.querySync({ name: "read", path: root }).state === "granted";
/** Without permission to read the tree there is nothing to check. */
const ignore = !readable;

/** The layers, from the top; imports look down only, never sideways within a row of several. */
const layers = [["cli"], ["inspect"], ["client", "server", "shadow"], ["wire", "shm"], ["proto", "ffi"]];
const generated = new Set(["proto/subspace.ts", "proto/subspace_pb.ts", "shm/core_wasm.ts"]);

function sources(folder = "", found: string[] = []): string[] {
  for (const entry of Deno.readDirSync(new URL(folder || ".", root))) {
    if (entry.name.startsWith(".") || entry.name === "node_modules" || entry.name === "dist") continue;
    const path = folder + entry.name;
    if (entry.isDirectory) sources(path + "/", found);
    else if (path.endsWith(".ts")) found.push(path);
  }
  return found.sort();
}

const read = (path: string) => Deno.readTextFileSync(new URL(path, root));
const layerOf = (folder: string) => layers.findIndex((layer) => layer.includes(folder));

/** The folders that a file imports from, with each specifier. */
function importsOf(path: string): { specifier: string; folder: string }[] {
  return [...read(path).matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map(([, specifier]) => ({
    specifier,
    folder: new URL(specifier, new URL(path, root)).pathname.slice(root.pathname.length).split("/")[0],
  }));
}

Deno.test({ name: "imports look only down the layers", ignore }, () => {
  for (const path of sources()) {
    const folder = path.split("/")[0];
    const layer = layerOf(folder);
    if (layer < 0) continue;
    for (const { specifier, folder: imported } of importsOf(path)) {
      const fine = imported === folder || layerOf(imported) > layer || imported === "deno.json" ||
        (folder === "wire" && imported === "shm" && specifier.endsWith("/layout.ts"));
      assert(fine, `${path} imports ${specifier}: ${folder} must not know ${imported}`);
    }
  }
});

Deno.test({ name: "mod.ts only re-exports", ignore: ignore || !sources().includes("mod.ts") }, () => {
  const code = read("mod.ts").replace(/\/\*\*[^]*?\*\//g, "").trim();
  for (const statement of code.split(";")) assert.match(statement.trim(), /^(export (type )?(\{|\*)[^]*|)$/);
});

Deno.test({ name: "the C library is called from ffi/ only", ignore }, () => {
  for (const path of sources()) {
    if (path.startsWith("ffi/") || path.startsWith("tests/") || path.startsWith("bench/")) continue;
    assert(!read(path).includes("Deno." + "dlopen"), path);
  }
});

Deno.test({ name: "no file is called after what it is not", ignore }, () => {
  for (const path of sources()) assert.doesNotMatch(path, /(^|\/)(utils?|common|helpers?|misc)(\/|\.ts)/);
});

Deno.test({ name: "files can be read at a sitting, and lines at a glance", ignore }, () => {
  for (const path of sources()) {
    if (generated.has(path)) continue;
    const lines = read(path).split("\n");
    assert(lines.length <= 900, `${path} has ${lines.length} lines`);
    lines.forEach((line, i) => assert(line.length <= 160, `${path}:${i + 1} has ${line.length} characters`));
  }
});

Deno.test({ name: "nothing is left behind in the code", ignore }, () => {
  const leftovers = new RegExp(
    ["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"].map((w) => `\\b${w}\\b`).join("|"),
  );
  for (const path of sources()) assert.doesNotMatch(read(path), leftovers, path);
});

Deno.test({ name: "no boundary is crossed with `any`", ignore }, () => {
  for (const path of sources()) {
    if (generated.has(path) || path.startsWith("tests/")) continue;
    assert.doesNotMatch(read(path), /(:|<|\bas) any\b/, path);
  }
});

Deno.test({ name: "programs start without the descriptors of protobuf-es", ignore }, () => {
  for (const path of sources()) {
    if (/^(tests|scripts|proto)\//.test(path)) continue;
    assert.doesNotMatch(read(path), /^import (?!type )[^;]*from "[^"]*subspace_pb\.ts"/m, path);
  }
});

Deno.test({ name: "dependencies are named in deno.json only", ignore }, () => {
  for (const path of sources()) {
    if (path.startsWith("scripts/")) continue;
    assert.doesNotMatch(read(path), /from "(npm|jsr|https?):/, path);
  }
});
