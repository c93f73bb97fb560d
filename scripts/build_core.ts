/**
 * Compiles the WebAssembly core: `shm/layout.ts` and `shm/structs.ts` become the constants of
 * `shm/core/offsets.ts`, and `shm/core/` becomes `shm/core_wasm.ts`. Both are checked in; the same sources give
 * the same bytes.
 */

import asc from "assemblyscript/asc";
import * as layout from "../shm/layout.ts";
import * as structs from "../shm/structs.ts";

const root = new URL("../shm/", import.meta.url);

function constantName(...words: string[]): string {
  return words.map((word) => word.replace(/([a-z0-9])([A-Z])/g, "$1_$2").toUpperCase()).join("_");
}

function constants(tables: Record<string, unknown>): string {
  let text = "";
  for (const [table, value] of Object.entries(tables)) {
    if (typeof value !== "object") continue;
    for (const [field, number] of Object.entries(value as Record<string, number>)) {
      text += `export const ${constantName(table, field)}: ${number < 0 ? "i32" : "u32"} = ${number};\n`;
    }
  }
  return text;
}

const offsets = "// Made by `deno task core` from shm/layout.ts and shm/structs.ts.\n\n" +
  constants({ ...layout }) +
  constants({ ...structs });
Deno.writeTextFileSync(new URL("core/offsets.ts", root), offsets);

let binary: Uint8Array | undefined;
const { error, stderr } = await asc.main([
  "core.ts",
  ...["--outFile", "core.wasm"],
  ...["--runtime", "stub"],
  ...["--enable", "threads"],
  ...["--use", "abort="],
  ...["--initialMemory", "1", "--maximumMemory", "65536"],
  ...["--importMemory", "-O3", "--noAssert"],
], {
  readFile: (name: string) => {
    try {
      return Deno.readTextFileSync(new URL(`core/${name}`, root));
    } catch {
      return null;
    }
  },
  writeFile: (_name: string, contents: string | Uint8Array) => {
    if (typeof contents !== "string") binary = contents;
  },
  listFiles: () => [],
});
if (error !== null || binary === undefined) {
  console.error(stderr.toString());
  Deno.exit(1);
}

const base64 = binary.toBase64().replace(/.{100}/g, "$&\n  ");
const module = `// Made by \`deno task core\` from shm/core/.

/** The WebAssembly core, compiled. */
export const coreWasm: Uint8Array<ArrayBuffer> = Uint8Array.fromBase64(\`
  ${base64}
\`);
`;
Deno.writeTextFileSync(new URL("core_wasm.ts", root), module);
console.log(`shm/core_wasm.ts: ${binary.length} bytes of WebAssembly`);
