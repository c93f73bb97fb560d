/** `subspace-inspect rollback` and `forget`: what becomes of that which a shadow keeps aside. */

import { askShadow, commandShadow, type ShadowTold } from "../../inspect/asking.ts";
import { deadlineIn, explain, InspectError } from "../../inspect/link.ts";
import { SCHEMA_VERSION } from "../../inspect/model.ts";
import { formatNumberOf } from "../../inspect/units.ts";
import { ExitCode } from "../exit_codes.ts";
import { writeError, writeOut } from "../output.ts";
import type { InspectFlags, Verb } from "./flags.ts";

type Command = "rollback" | "forget";

const words: Readonly<Record<Command, { cannot(socket: string): string; readonly done: string }>> = {
  rollback: { cannot: (socket) => `Cannot roll back ${socket}`, done: "Rolled back" },
  forget: {
    cannot: (socket) => `Cannot forget what is kept aside in ${socket}`,
    done: "Forgot what was kept aside in",
  },
};

/** Puts what is kept aside in the place of the newest state: the next server recovers that. */
export const runRollback: Verb = (flags) => command(flags, "rollback");

/** Lets go of what is kept aside, and so of its memory. */
export const runForget: Verb = (flags) => command(flags, "forget");

async function command({ socket, timeout, yes, json }: InspectFlags, what: Command): Promise<number> {
  const told = await asking(socket, what, () => askShadow(socket, deadlineIn(timeout)));
  const { previousSessionId, previousChannels } = told.report;
  if (previousSessionId === 0n) throw refusal(socket, what, "nothing is kept aside");
  if (!yes && !confirmed(socket, what, told)) {
    throw refusal(socket, what, "it was not confirmed; say so with --yes");
  }
  const error = await asking(socket, what, () => commandShadow(socket, what, deadlineIn(timeout)));
  if (error !== "") throw refusal(socket, what, error);
  const done = { schemaVersion: SCHEMA_VERSION, socket, done: what, channels: previousChannels };
  writeOut(
    json
      ? JSON.stringify(done) + "\n"
      : `${words[what].done} ${socket}: ${
        formatNumberOf(previousChannels, "channel")
      } of session ${previousSessionId}\n`,
  );
  return ExitCode.ok;
}

async function asking<T>(socket: string, what: Command, ask: () => Promise<T | null>): Promise<T> {
  let answer: T | null;
  try {
    answer = await ask();
  } catch (error) {
    throw refusal(socket, what, explain(error));
  }
  if (answer === null) {
    throw refusal(
      socket,
      what,
      "no shadow of ours listens there, and those of the reference keep nothing aside",
    );
  }
  return answer;
}

function refusal(socket: string, what: Command, reason: string): InspectError {
  return new InspectError(`${words[what].cannot(socket)}: ${reason}`);
}

/** Asks whoever sits at the terminal; without one nobody can say yes. */
function confirmed(socket: string, what: Command, { report, numChannels }: ShadowTold): boolean {
  if (!Deno.stdin.isTerminal()) return false;
  const aside = formatNumberOf(report.previousChannels, "channel");
  writeError(
    what === "rollback"
      ? `The next server on ${socket} will recover ${aside} instead of ${numChannels}, which are kept aside then.\n`
      : `${aside}, with their messages, will be gone for good from ${socket}.\n`,
  );
  return prompt("Go on? [y/N]")?.trim().toLowerCase().startsWith("y") ?? false;
}
