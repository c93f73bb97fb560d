/** `subspace-inspect fds`: every fd that a shadow keeps. */

import { fdsOf, renderFds } from "../../inspect/fds.ts";
import { lookAtAll } from "../../inspect/sight.ts";
import { InspectError } from "../../inspect/link.ts";
import { ExitCode } from "../exit_codes.ts";
import type { InspectFlags } from "./flags.ts";
import { show } from "./screen.ts";

/** Prints the fds of a shadow. */
export async function runFds({ socket, json, timeout }: InspectFlags): Promise<number> {
  using sight = await lookAtAll(socket, { timeoutMs: timeout });
  if (sight.kind === "server") {
    throw new InspectError(
      `Cannot list the fds of ${socket}: that is a server, and only a shadow hands them out`,
    );
  }
  show(fdsOf(sight.dump, sight.source), json, renderFds);
  return sight.failure === null ? ExitCode.ok : ExitCode.failure;
}
