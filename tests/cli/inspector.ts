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

/** Where its output goes. */
export interface Output {
  /** Nobody reads standard output. Default: false. */
  readonly closed?: boolean;
  /** It is a terminal so wide, and 24 lines high. Default: it is none. */
  readonly columns?: number;
}

/** Runs the inspector. */
export async function inspector(
  args: readonly string[],
  { closed = false, columns }: Output = {},
): Promise<Outcome> {
  const texts = { out: "", error: "" };
  const take = (stream: "out" | "error") => (bytes: Uint8Array) => {
    if (closed && stream === "out") throw new Deno.errors.BrokenPipe("closed");
    texts[stream] += new TextDecoder().decode(bytes);
    return bytes.length;
  };
  const isTerminal = () => columns !== undefined;
  using replaced = new DisposableStack();
  replace(replaced, Deno.stdout, { writeSync: take("out"), isTerminal });
  replace(replaced, Deno.stderr, { writeSync: take("error"), isTerminal });
  replace(replaced, Deno, { consoleSize: () => ({ columns, rows: 24 }), noColor: false });
  return { code: await exitCodeOf(program, args), ...texts };
}

/** Replaces members of an object, until the stack is disposed. */
function replace(stack: DisposableStack, object: object, members: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(members)) {
    const own = Object.getOwnPropertyDescriptor(object, name);
    Object.defineProperty(object, name, { value, configurable: true, writable: true });
    stack.defer(() => {
      if (own === undefined) Reflect.deleteProperty(object, name);
      else Object.defineProperty(object, name, own);
    });
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
