/** `subspace-inspect`: shows what a shadow keeps, or what a server tells, and does what little it is told to. */

import { ExitCode } from "./exit_codes.ts";
import { FlagError } from "./flags.ts";
import { inspectFlags, type Verb } from "./inspect/flags.ts";
import { main, type Program } from "./program.ts";
import { nearest } from "./suggestion.ts";

interface VerbDeclaration {
  /** Those in brackets may be left out. */
  readonly operands: readonly string[];
  readonly what: string;
  /** Loads its code when it is its turn. */
  load(): Promise<Verb>;
}

const verbs: Readonly<Record<string, VerbDeclaration>> = {
  inspect: {
    operands: [],
    what: "the whole picture on one screen; the default",
    load: async () => (await import("./inspect/inspect.ts")).runInspect,
  },
  health: {
    operands: [],
    what: "is all well, and if not, what to do: exit code 0 fine, 1 degraded, 2 down",
    load: async () => (await import("./inspect/health.ts")).runHealth,
  },
  channels: {
    operands: [],
    what: "a line a channel",
    load: async () => (await import("./inspect/channels.ts")).runChannels,
  },
  channel: {
    operands: ["CHANNEL"],
    what: "one channel from near: a map of its slots, who has them, its rates",
    load: async () => (await import("./inspect/channel.ts")).runChannel,
  },
  users: {
    operands: [],
    what: "a line a publisher or subscriber",
    load: async () => (await import("./inspect/users.ts")).runUsers,
  },
  fds: {
    operands: [],
    what: "every fd that a shadow keeps",
    load: async () => (await import("./inspect/fds.ts")).runFds,
  },
  watch: {
    operands: [],
    what: "rates per second, redrawn in place; q quits",
    load: async () => (await import("./inspect/watch.ts")).runWatch,
  },
  hz: {
    operands: ["CHANNEL"],
    what: "how often messages come, and how evenly",
    load: async () => (await import("./inspect/hz.ts")).runHz,
  },
  tail: {
    operands: ["CHANNEL"],
    what: "messages as they come; nobody notices, for memory is read and nothing is subscribed to",
    load: async () => (await import("./inspect/tail.ts")).runTail,
  },
  shadows: {
    operands: ["[SOCKET]..."],
    what:
      "whether shadows are in step with their server, what they have, and why they were last sent everything",
    load: async () => (await import("./inspect/shadows.ts")).runShadows,
  },
  counters: {
    operands: [],
    what: "what server and shadows count: requests, refusals, resyncs, queues, loop stalls, fds",
    load: async () => (await import("./inspect/counters.ts")).runCounters,
  },
  metrics: {
    operands: [],
    what: "Prometheus text; with --listen it is served (needs --allow-net)",
    load: async () => (await import("./inspect/metrics.ts")).runMetrics,
  },
  diff: {
    operands: ["A", "B"],
    what:
      "what differs between two sockets, or a socket and a saved FILE.json (needs --allow-read): exit code 1",
    load: async () => (await import("./inspect/diff.ts")).runDiff,
  },
  record: {
    operands: ["CHANNEL...", "FILE"],
    what: "messages to a file, as they come, until it is stopped (needs --allow-write)",
    load: async () => (await import("./inspect/record.ts")).runRecord,
  },
  replay: {
    operands: ["FILE"],
    what: "publish what was recorded, as fast as it came or at another --speed (needs --allow-read)",
    load: async () => (await import("./inspect/replay.ts")).runReplay,
  },
  rollback: {
    operands: [],
    what: "have a shadow give the next server what it keeps aside of the time before (with --yes, or asked)",
    load: async () => (await import("./inspect/previous.ts")).runRollback,
  },
  forget: {
    operands: [],
    what: "have a shadow let go of what it keeps aside (with --yes, or asked)",
    load: async () => (await import("./inspect/previous.ts")).runForget,
  },
  publish: {
    operands: ["CHANNEL", "[FILE]"],
    what: "publish each line of standard input, or of a file (needs --allow-read)",
    load: async () => (await import("./inspect/publish.ts")).runPublish,
  },
};

/** Finds a verb, and checks what it was given. */
function verbOf(name: string, given: readonly string[]): VerbDeclaration {
  if (!Object.hasOwn(verbs, name)) {
    const candidate = nearest(name, Object.keys(verbs));
    throw new FlagError(
      `ERROR: Unknown verb '${name}'${candidate === null ? "" : `; did you mean ${candidate}?`}`,
    );
  }
  const { operands } = verbs[name];
  const missing = operands.slice(given.length).find((operand) => !operand.startsWith("["));
  if (missing !== undefined) throw new FlagError(`ERROR: Missing ${missing} after '${name}'`);
  const many = operands.some((operand) => operand.endsWith("..."));
  if (!many && given.length > operands.length) {
    throw new FlagError(`ERROR: Unexpected argument '${given[operands.length]}'`);
  }
  return verbs[name];
}

export const program: Program<typeof inspectFlags> = {
  name: "subspace-inspect",
  summary: "shows the state of a subspace system: channels, users, slots, and what is wrong",
  operands: "[VERB]",
  verbs: Object.entries(verbs).map(([name, { operands, what }]) => ({
    command: [name, ...operands].join(" "),
    what,
  })),
  flags: inspectFlags,
  examples: [
    {
      command: "subspace-inspect",
      what: "what the shadow on /tmp/subspace_shadow keeps; works when the server is dead",
    },
    {
      command: "subspace-inspect --socket=/tmp/subspace",
      what: "what a server tells: less, but clients' names too",
    },
    { command: "subspace-inspect health", what: "one verdict, and what to do" },
    {
      command: "subspace-inspect channel /imu",
      what: "who has which slot of a channel, and how fast it goes",
    },
    { command: "subspace-inspect --json | jq '.findings'", what: "only what needs attention, as data" },
  ],
  exitCodes: {
    0: "shown; of health: all is well",
    1: "it could not be done, or there is damage; of health: degraded; of diff: there are differences; " +
      "of shadows: one is not in step",
    2: "of health: down",
    64: "wrong command line",
  },
  usageCode: ExitCode.usage,
  async run(values, [name = "inspect", ...operands]) {
    const verb = verbOf(name, operands);
    // A big system's shadow sends thousands of them.
    const [run] = await Promise.all([
      verb.load(),
      import("../ffi/fd.ts").then(({ reserveFds }) => reserveFds()),
    ]);
    return await run(values, operands);
  },
};

if (import.meta.main) await main(program, Deno.args);
