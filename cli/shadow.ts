/** `subspace-shadow`: keeps a server's state, so that the server may be killed and come back. */

import { ExitCode } from "./exit_codes.ts";
import { flag, text } from "./flags.ts";
import { logLevelFlag } from "./log_level.ts";
import { main, type Program } from "./program.ts";

const flags = {
  socket: flag({
    type: text("NAME"),
    default: "/tmp/subspace_shadow",
    description: "Abstract Unix socket to listen on",
  }),
  log_level: logLevelFlag,
};

export const program: Program<typeof flags> = {
  name: "subspace-shadow",
  summary: "keeps the state of a subspace server, so that the server can be killed and come back",
  flags,
  examples: [
    {
      command: "subspace-shadow",
      what: "a shadow for the server that is started with --shadow_socket=/tmp/subspace_shadow",
    },
    {
      command: "subspace-shadow --socket=/tmp/second_shadow --log_level=debug",
      what: "a second one, for --secondary_shadow_socket; logs every event that it gets",
    },
  ],
  exitCodes: { 0: "stopped by SIGTERM or SIGINT", 1: "wrong flags, or the socket is in use" },
  usageCode: ExitCode.failure,
  async run(values) {
    const [{ Shadow }, { configureLogging }, { stopSignal }] = await Promise.all([
      import("../shadow/shadow.ts"),
      import("./logging.ts"),
      import("./stopping.ts"),
    ]);
    configureLogging("shadow", values.log_level);
    const stopping = stopSignal();
    using _shadow = start(() => Shadow.start({ socket: values.socket }));
    await stopping;
    return ExitCode.ok;
  },
};

/** Says what program it was that could not start, in the reference's words. */
function start<T>(starting: () => T): T {
  try {
    return starting();
  } catch (error) {
    throw new Error(`Error running shadow process: ${error instanceof Error ? error.message : error}`);
  }
}

if (import.meta.main) await main(program, Deno.args);
