/** `subspace-inspect`: shows what a shadow keeps, or what a server tells, and changes nothing. */

import { ExitCode } from "./exit_codes.ts";
import { duration, flag, FlagError, onOff, text } from "./flags.ts";
import type { InspectFlags } from "./inspect/inspect.ts";
import { main, type Program } from "./program.ts";
import { nearest } from "./suggestion.ts";

const flags = {
  socket: flag({
    type: text("NAME"),
    default: "/tmp/subspace_shadow",
    description: "Abstract Unix socket of a shadow, or of a server",
  }),
  json: flag({ type: onOff, default: false, description: "Print the same as JSON, with a schemaVersion" }),
  timeout: flag({ type: duration, default: 5000, description: "How long to wait for answers" }),
};

/** Loaded when it is its turn. */
const verbs: Readonly<Record<string, () => Promise<(values: InspectFlags) => Promise<number>>>> = {
  inspect: async () => (await import("./inspect/inspect.ts")).runInspect,
};

export const program: Program<typeof flags> = {
  name: "subspace-inspect",
  summary: "shows the state of a subspace system: channels, users, slots, and what is wrong",
  operands: "[inspect]",
  flags,
  examples: [
    {
      command: "subspace-inspect",
      what: "what the shadow on /tmp/subspace_shadow keeps; works when the server is dead",
    },
    {
      command: "subspace-inspect --socket=/tmp/subspace",
      what: "what a server tells: less, but clients' names too",
    },
    { command: "subspace-inspect --json | jq '.findings'", what: "only what needs attention, as data" },
  ],
  exitCodes: {
    0: "shown",
    1: "nobody answered as a shadow or a server does, or shared memory is damaged",
    64: "wrong command line",
  },
  usageCode: ExitCode.usage,
  async run(values, [verb = "inspect", ...rest]) {
    if (rest.length > 0) throw new FlagError(`ERROR: Unexpected argument '${rest[0]}'`);
    if (!Object.hasOwn(verbs, verb)) {
      const candidate = nearest(verb, Object.keys(verbs));
      throw new FlagError(
        `ERROR: Unknown verb '${verb}'${candidate === null ? "" : `; did you mean ${candidate}?`}`,
      );
    }
    const run = await verbs[verb]();
    return await run(values);
  },
};

if (import.meta.main) await main(program, Deno.args);
