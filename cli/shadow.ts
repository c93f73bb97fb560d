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
  summary: "keeps the state of a subspace server that may be killed and come back",
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
    const [{ Shadow }, { configureLogging }, { stopSignal }, { startError }] = await Promise.all([
      import("../shadow/shadow.ts"),
      import("./logging.ts"),
      import("./stopping.ts"),
      import("./start_error.ts"),
      import("../ffi/fd.ts").then(({ reserveFds }) => reserveFds()),
    ]);
    const stopping = stopSignal();
    configureLogging("shadow", values.log_level);
    using stack = new DisposableStack();
    try {
      stack.use(Shadow.start({ socket: values.socket }));
    } catch (error) {
      throw startError("Error running shadow process", error);
    }
    await stopping;
    return ExitCode.ok;
  },
};

if (import.meta.main) await main(program, Deno.args);
