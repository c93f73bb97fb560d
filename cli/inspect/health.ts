/** `subspace-inspect health`: one verdict, for people and for monitors. */

import { type Health, healthOf, renderHealth, unreachable } from "../../inspect/health.ts";
import { inspect } from "../../inspect/inspect.ts";
import { InspectError } from "../../inspect/link.ts";
import { ExitCode } from "../exit_codes.ts";
import type { InspectFlags } from "./flags.ts";
import { show } from "./screen.ts";

/** Prints the health of a system. The exit code is the verdict. */
export async function runHealth({ socket, json, timeout }: InspectFlags): Promise<number> {
  const health = await judge(socket, timeout);
  show(health, json, renderHealth);
  return ExitCode[health.status];
}

async function judge(socket: string, timeoutMs: number): Promise<Health> {
  try {
    return healthOf(await inspect(socket, { timeoutMs }));
  } catch (error) {
    if (error instanceof InspectError) return unreachable(error.message);
    throw error;
  }
}
