/** What the reference's server leaves behind when it is killed. */

import { removeBuffers } from "../../deployment.ts";

/** Removes a session's message buffers, and the empty files in /tmp by which the reference finds unique names. */
export function removeLeftovers(sessionId: bigint): void {
  removeBuffers([String(sessionId)]);
  const prefix = BigInt.asUintN(32, sessionId).toString(16).padStart(8, "0") + ".";
  for (const { name } of Deno.readDirSync("/tmp")) {
    if (name.startsWith(prefix)) Deno.removeSync(`/tmp/${name}`);
  }
}
