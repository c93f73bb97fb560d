/** `subspace-shadow`: keeps a server's state, so that the server may be killed and come back. */

import { reserveFds } from "../ffi/fd.ts";
import { accessRules, anybodyFlag, groupsFlag, usersFlag } from "./access_flags.ts";
import { ExitCode } from "./exit_codes.ts";
import { maxFdsFlag } from "./fd_limit.ts";
import { byteCount, duration, flag, integer, text } from "./flags.ts";
import { logFormatFlag, logLevelFlag } from "./log_level.ts";
import { main, type Program } from "./program.ts";

const LIMITS = "Limits";
/** Clients whose fds a shadow should have room for: as many as a server takes unless told otherwise. */
const CLIENTS_EXPECTED = 2048;

const flags = {
  socket: flag({
    type: text("NAME"),
    default: "/tmp/subspace_shadow",
    description: "Abstract Unix socket to listen on",
  }),
  log_level: logLevelFlag,
  log_format: logFormatFlag,
  allow_user: usersFlag("Users who may take the state, as subspace-inspect does; may be repeated"),
  allow_group: groupsFlag("Groups whose members may take the state; may be repeated"),
  allow_any: anybodyFlag("Let every user of this machine take the state: with it go all channels' memory"),
  allow_server_user: usersFlag("Users whose servers may write the state, and take it; may be repeated"),
  allow_server_group: groupsFlag("Groups whose members' servers may write the state; may be repeated"),
  max_connections: flag({
    type: integer(2, 1_000_000),
    default: 256,
    description: "Connections at a time; one more and the oldest that is no server is closed",
    group: LIMITS,
  }),
  max_held_fds: flag({
    type: integer(1, 1_000_000),
    default: 4096,
    description: "Fds kept open only for readers; one more and the slowest reader is closed",
    group: LIMITS,
  }),
  max_frame_bytes: flag({
    type: byteCount,
    default: 64 * 1024 * 1024,
    description: "Longest event; a server that sends a longer one is disconnected",
    group: LIMITS,
  }),
  max_fds: maxFdsFlag,
  dump_timeout: flag({
    type: duration,
    default: 30_000,
    description: "A reader of the state that takes nothing for so long is closed",
    group: LIMITS,
  }),
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
    const reserved = reserveFds();
    const [{ Shadow }, { startLogging }, { stopSignal }, { startError }, { prepareFds }, { Service }] =
      await Promise
        .all([
          import("../shadow/shadow.ts"),
          import("./logging.ts"),
          import("./stopping.ts"),
          import("./start_error.ts"),
          import("./fd_limit.ts"),
          import("./service.ts"),
        ]);
    const stopping = stopSignal();
    startLogging("shadow", values.log_level, values.log_format);
    const fewFds = prepareFds(values.max_fds, CLIENTS_EXPECTED);
    if (fewFds !== null) {
      const { getLogger } = await import("@logtape/logtape");
      getLogger(["subspace", "shadow"]).warning("{fewFds}", { fewFds });
    }
    using stack = new DisposableStack();
    const service = stack.use(new Service());
    try {
      stack.use(Shadow.start({
        keeper: service.managed ? service : null,
        kept: service.takeFds(),
        socket: values.socket,
        stallMs: values.dump_timeout,
        connectionsMax: values.max_connections,
        heldFdsMax: values.max_held_fds,
        frameBytesMax: values.max_frame_bytes,
        readers: accessRules(values.allow_user, values.allow_group, values.allow_any),
        writers: accessRules(values.allow_server_user, values.allow_server_group),
      }));
    } catch (error) {
      throw startError("Error running shadow process", error);
    }
    await reserved;
    service.ready(`listening on ${values.socket}`);
    await stopping;
    service.stopping();
    return ExitCode.ok;
  },
};

if (import.meta.main) await main(program, Deno.args);
