/** How channels are ordered, and how types and session ids are shown. */

import type { Channel } from "./model.ts";

type Named = Pick<Channel, "name" | "mux">;

/** Sorts by name, virtual channels behind their multiplexer. */
export function byNameBehindMultiplexer(a: Named, b: Named): number {
  return compareNames(a.mux ?? a.name, b.mux ?? b.name) || Number(a.mux !== null) - Number(b.mux !== null) ||
    compareNames(a.name, b.name);
}

/** Orders names by code units: the same everywhere, whatever the language. */
export function compareNames(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

const decoder = new TextDecoder("utf-8", { fatal: true });

/** A channel's type as text; bytes that are no UTF-8 as hexadecimal digits behind `0x`. */
export function typeText(type: Uint8Array): string {
  if (type.length === 0) return "";
  try {
    return decoder.decode(type);
  } catch {
    return `0x${type.toHex()}`;
  }
}

/** A session id is the time at which the session began. null where that has not come yet: it is of another boot. */
export function sessionAgeMs(sessionId: bigint, nowNs: bigint): number | null {
  return sessionId <= nowNs ? Number((nowNs - sessionId) / 1_000_000n) : null;
}
