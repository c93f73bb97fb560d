/** `subspace-inspect shadows [SOCKET...]`: whether shadows are in step with their server. */

import { programsOf } from "../../inspect/programs.ts";
import { InspectError } from "../../inspect/link.ts";
import { type Programs, SCHEMA_VERSION } from "../../inspect/model.ts";
import { renderShadows } from "../../inspect/shadows.ts";
import { ExitCode } from "../exit_codes.ts";
import type { InspectFlags } from "./flags.ts";
import { show } from "./screen.ts";

/** Prints the shadows of a system. The exit code says whether all are in step. */
export async function runShadows(flags: InspectFlags, sockets: readonly string[]): Promise<number> {
  const programs = await askAll(flags, sockets);
  show({ schemaVersion: SCHEMA_VERSION, ...programs }, flags.json, renderShadows);
  return programs.shadows.some(({ inStep }) => inStep === false) ? ExitCode.degraded : ExitCode.ok;
}

/** Asks the programs of a system, of which one has to answer. */
export async function askAll(
  { socket, server, timeout }: InspectFlags,
  sockets: readonly string[] = [],
): Promise<Programs> {
  const named = sockets.length === 0 ? [socket] : sockets;
  const programs = await programsOf(named, { timeoutMs: timeout, serverSocket: server });
  const { shadows } = programs;
  if (programs.server === null && shadows.every(({ kind }) => kind === "gone")) {
    throw new InspectError(
      shadows.length === 0
        ? `Cannot ask ${named.join(", ")}: that is a server of the reference's, which tells nothing of itself`
        : `Cannot inspect ${shadows.map(({ socket, problem }) => `${socket}: ${problem}`).join("; ")}; ` +
          "start a shadow, or name another socket with --socket",
    );
  }
  return programs;
}
