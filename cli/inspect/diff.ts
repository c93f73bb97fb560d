/** `subspace-inspect diff A B`: what differs between two systems. */

import { differencesOf, renderDifferences } from "../../inspect/difference.ts";
import { inspect } from "../../inspect/inspect.ts";
import { type Inspection, SCHEMA_VERSION } from "../../inspect/model.ts";
import { ExitCode } from "../exit_codes.ts";
import { FileError, readBytes } from "./files.ts";
import type { InspectFlags } from "./flags.ts";
import { show } from "./screen.ts";

/** Prints what differs. The exit code says whether anything does. */
export async function runDiff(flags: InspectFlags, [a, b]: readonly string[]): Promise<number> {
  const differences = differencesOf(await systemOf(flags, a), await systemOf(flags, b), [a, b]);
  show(differences, flags.json, renderDifferences);
  return differences.differences.length === 0 ? ExitCode.ok : ExitCode.different;
}

/** A file that ends in `.json` is what `--json` printed; all else is a socket. */
async function systemOf({ timeout }: InspectFlags, name: string): Promise<Inspection> {
  if (!name.endsWith(".json")) return await inspect(name, { timeoutMs: timeout });
  let saved: unknown;
  try {
    saved = JSON.parse(new TextDecoder().decode(readBytes(name)));
  } catch (error) {
    if (error instanceof FileError) throw error;
    throw new FileError(`Cannot compare with ${name}: it is no JSON; save one with 'inspect --json'`);
  }
  if (!isInspection(saved)) {
    throw new FileError(
      `Cannot compare with ${name}: it is not what 'inspect --json' of this version prints`,
    );
  }
  return saved;
}

function isInspection(value: unknown): value is Inspection {
  if (typeof value !== "object" || value === null) return false;
  if (!("schemaVersion" in value) || value.schemaVersion !== SCHEMA_VERSION) return false;
  if (!("session" in value) || typeof value.session !== "object") return false;
  return "channels" in value && Array.isArray(value.channels) && value.channels.every(isChannel);
}

function isChannel(value: unknown): boolean {
  return typeof value === "object" && value !== null && "name" in value && typeof value.name === "string" &&
    "publishers" in value && Array.isArray(value.publishers) &&
    "subscribers" in value && Array.isArray(value.subscribers);
}
