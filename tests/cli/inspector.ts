/** The inspector in this process, with its output taken away from it. */

import { program } from "../../cli/inspect.ts";
import { exitCodeOf } from "../../cli/program.ts";
import type { RecordedShadow } from "../inspect/recorded_shadow.ts";
import { send } from "../shm/local_channel.ts";

/** What came of it. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** Runs the inspector; `closed`: nobody reads what it says. */
export async function inspector(args: readonly string[], closed = false): Promise<Outcome> {
  const texts = { out: "", error: "" };
  const take = (stream: "out" | "error") => (bytes: Uint8Array) => {
    if (closed && stream === "out") throw new Deno.errors.BrokenPipe("closed");
    texts[stream] += new TextDecoder().decode(bytes);
    return bytes.length;
  };
  const { writeSync: toOut } = Deno.stdout, { writeSync: toError } = Deno.stderr;
  try {
    Deno.stdout.writeSync = take("out");
    Deno.stderr.writeSync = take("error");
    return { code: await exitCodeOf(program, args), ...texts };
  } finally {
    Deno.stdout.writeSync = toOut;
    Deno.stderr.writeSync = toError;
  }
}

/** A test of verbs that wait for signals, which they listen to for the rest of the process. */
export function test(name: string, check: () => Promise<void>, ignore = false): void {
  Deno.test({ name, fn: check, ignore, sanitizeOps: false, sanitizeResources: false });
}

/** Does something while somebody publishes on a channel of what was recorded. */
export async function whileTalking<T>(
  recorded: RecordedShadow,
  channel: string,
  act: () => Promise<T>,
): Promise<T> {
  using publisher = recorded.publisher(channel, 0);
  const timer = setInterval(() => send(publisher, "hello"), 2);
  try {
    return await act();
  } finally {
    clearInterval(timer);
  }
}
