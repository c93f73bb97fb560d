/**
 * The lock-free core with a scheduler's hand on it: the real sources, in which every access to shared memory first
 * asks whether it may go on.
 *
 * The sources of `shm/core/` are compiled once more with each load, store and atomic operation replaced by a call that
 * does the same after a step. A step is a WebAssembly import that suspends: whoever called the core waits there until
 * it is resumed, or for ever, which is how a process dies between two instructions.
 */

import asc from "assemblyscript/asc";
import type { CoreExports } from "../../shm/core_exports.ts";

const core = new URL("../../shm/core/", import.meta.url);
const wrapped = ["load", "store", "add", "sub", "and", "or", "xchg", "cmpxchg"];

/** Where the ranges without steps are listed, as pairs of addresses up to a pair of zeroes; not the core's. */
const QUIET_RANGES = 64;

/** Has accesses to ranges go on without a step: to what nobody writes. */
export function setQuietRanges(
  memory: WebAssembly.Memory,
  ranges: readonly (readonly [number, number])[],
): void {
  new Uint32Array(memory.buffer, QUIET_RANGES).set([...ranges.flat(), 0, 0]);
}

/** Accesses below `shared` are to private structs. */
const traced = (shared: number) => `
@external("env", "step")
declare function step(): void;

function touch(address: u32): u32 {
  if (address < ${shared}) return address;
  for (let range: u32 = ${QUIET_RANGES}; load<u32>(range, 4); range += 8) {
    if (address >= load<u32>(range) && address < load<u32>(range, 4)) return address;
  }
  step();
  return address;
}

export function tracedLoad<T>(address: u32, offset: u32 = 0): T { return load<T>(touch(address + offset)); }
export function tracedStore<T>(address: u32, value: u64, offset: u32 = 0): void {
  store<T>(touch(address + offset), <T> value);
}
export function atomic_load<T>(address: u32, offset: u32 = 0): T { return atomic.load<T>(touch(address + offset)); }
export function atomic_store<T>(address: u32, value: T, offset: u32 = 0): void {
  atomic.store<T>(touch(address + offset), value);
}
${
  ["add", "sub", "and", "or", "xchg"].map((name) => `
export function atomic_${name}<T>(address: u32, value: T, offset: u32 = 0): T {
  return atomic.${name}<T>(touch(address + offset), value);
}`).join("\n")
}
export function atomic_cmpxchg<T>(address: u32, expected: T, value: T, offset: u32 = 0): T {
  return atomic.cmpxchg<T>(touch(address + offset), expected, value);
}
`;

function instrument(source: string): string {
  const names = ["tracedLoad", "tracedStore", ...wrapped.map((name) => `atomic_${name}`)];
  return `import { ${names.join(", ")} } from "./traced";\n` + source
    .replace(/\batomic\.(\w+)</g, "atomic_$1<")
    .replace(/(?<![\w.])load</g, "tracedLoad<")
    .replace(/(?<![\w.])store<(\w+)>\(([^;]*)\);/g, (_, type, args) => `tracedStore<${type}>(${args});`);
}

/**
 * Compiles it.
 *
 * @param shared Addresses from here on are shared memory.
 * @param spoil Changes a source, to see whether the fault is found.
 */
export async function compileTracedCore(
  shared: number,
  spoil: (name: string, source: string) => string = (_, source) => source,
): Promise<WebAssembly.Module> {
  let binary: Uint8Array<ArrayBuffer> | undefined;
  const { error, stderr } = await asc.main([
    "core.ts",
    ...["--outFile", "core.wasm", "--runtime", "stub", "--enable", "threads", "--use", "abort="],
    ...["--initialMemory", "1", "--maximumMemory", "65536", "--importMemory", "-O2", "--noAssert"],
  ], {
    readFile: (name: string) => {
      if (name === "traced.ts") return traced(shared);
      try {
        const source = spoil(name, Deno.readTextFileSync(new URL(name, core)));
        return name === "core.ts" || name === "offsets.ts" ? source : instrument(source);
      } catch {
        return null;
      }
    },
    writeFile: (_name: string, contents: string | Uint8Array) => {
      if (typeof contents !== "string") binary = Uint8Array.from(contents);
    },
    listFiles: () => [],
  });
  if (error !== null || binary === undefined) throw new Error(`Cannot compile the traced core: ${stderr}`);
  return new WebAssembly.Module(binary);
}

/** The JavaScript Promise Integration API, which TypeScript does not know yet. */
interface PromiseIntegration {
  Suspending: new (callback: () => Promise<void>) => WebAssembly.ImportValue;
  promising(callback: WebAssembly.ExportValue): (...args: number[]) => Promise<number>;
}
const { Suspending, promising } = WebAssembly as unknown as PromiseIntegration;

/** The core's exports, each of which resolves when it has been resumed often enough. */
export type TracedCore = { [Name in keyof CoreExports]: (...args: number[]) => Promise<number> };

/** The core as one process has it, on the memory that all share. */
export function instantiate(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  step: () => Promise<void>,
): TracedCore {
  const instance = new WebAssembly.Instance(module, { env: { memory, step: new Suspending(step) } });
  const exports = Object.entries(instance.exports)
    .filter(([, value]) => typeof value === "function")
    .map(([name, value]) => [name, promising(value)]);
  return Object.fromEntries(exports) as TracedCore;
}
