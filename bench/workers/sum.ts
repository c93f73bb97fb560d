/** Sums up messages where they are, with SIMD instructions, as C++ compilers do: a WebAssembly module of the user's. */

import { sharedMemory } from "../../mod.ts";

/*
 * What it is compiled from, by AssemblyScript with `--runtime stub --enable simd --importMemory -O3 --noAssert`:
 *
 *     export function sum(start: u32, bytes: u32): u32 {
 *       let a = i32x4.splat(0), b = a, c = a, d = a;
 *       let at = start;
 *       const end = start + bytes;
 *       for (const whole = start + (bytes & ~63); at < whole; at += 64) {
 *         a = i32x4.add(a, v128.load(at));
 *         b = i32x4.add(b, v128.load(at, 16));
 *         c = i32x4.add(c, v128.load(at, 32));
 *         d = i32x4.add(d, v128.load(at, 48));
 *       }
 *       a = i32x4.add(i32x4.add(a, b), i32x4.add(c, d));
 *       let sum: u32 = i32x4.extract_lane(a, 0) + ... + i32x4.extract_lane(a, 3);
 *       for (; at + 4 <= end; at += 4) sum += load<u32>(at);
 *       for (let shift = 0; at < end; at++, shift += 8) sum += <u32> load<u8>(at) << shift;
 *       return sum;
 *     }
 */
const module = new WebAssembly.Module(Uint8Array.fromBase64(`
  AGFzbQEAAAABBwFgAn9/AX8CEgEDZW52Bm1lbW9yeQIBAYCABAMCAQAHEAIDc3VtAAAGbWVtb3J5AgAK1gEB0wECBHsDfyAAIAFq
  IQcgACABQUBxaiEBA0AgACABSQRAIAIgAP0ABAD9rgEhAiADIAD9AAQQ/a4BIQMgBCAA/QAEIP2uASEEIAUgAP0ABDD9rgEhBSAA
  QUBrIQAMAQsLIAIgA/2uASAEIAX9rgH9rgEiAv0bACAC/RsBaiAC/RsCaiAC/RsDaiEGA0AgAEEEaiIBIAdNBEAgBiAAKAIAaiEG
  IAEhAAwBCwsDQCAAIAdJBEAgBiAALQAAIAh0aiEGIABBAWohACAIQQhqIQgMAQsLIAYL
`));
const { exports } = new WebAssembly.Instance(module, { env: { memory: sharedMemory() } });

/** The sum of the 32-bit words at an address, modulo 2^32. */
export const sum = exports.sum as (address: number, bytes: number) => number;
