/** `subspace-server`: serves the publishers and subscribers of a machine, and goes on where it was killed. */

import { reserveFds } from "../ffi/fd.ts";
import { accessRules } from "./access_flags.ts";
import type { ServerOptions } from "../server/server.ts";
import { ExitCode } from "./exit_codes.ts";
import type { FlagValues } from "./flags.ts";
import { main, type Program } from "./program.ts";
import { networkFlagsSet, serverFlags } from "./server_flags.ts";

/** What `--notify_fd` is told (specification, section 8.1). Ours never waits for clients to leave, so never says 3. */
const Notice = { ready: 1n, stopped: 2n } as const;

export const program: Program<typeof serverFlags> = {
  name: "subspace-server",
  summary: "connects publishers and subscribers of a machine through shared memory",
  flags: serverFlags,
  examples: [
    { command: "subspace-server --local", what: "a server for this machine; what it knows ends with it" },
    {
      command: "subspace-server --local --shadow_socket=/tmp/subspace_shadow",
      what: "one that can be killed and started again without its clients noticing, beside a subspace-shadow",
    },
    {
      command: "subspace-server --local --shadow_socket=/tmp/subspace_shadow --takeover",
      what: "a new version in the place of the one that runs, without a gap",
    },
  ],
  exitCodes: { 0: "stopped by SIGTERM or SIGINT, or taken over", 1: "wrong flags, or it could not start" },
  usageCode: ExitCode.failure,
  async run(values) {
    // The kernel takes as long for that as it takes to load the rest.
    const reserved = reserveFds();
    const [
      { Server },
      { startLogging },
      { stopSignal },
      { openNotifier },
      { startError },
      { prepareFds },
      { Service },
    ] = await Promise.all([
      import("../server/server.ts"),
      import("./logging.ts"),
      import("./stopping.ts"),
      import("./notifier.ts"),
      import("./start_error.ts"),
      import("./fd_limit.ts"),
      import("./service.ts"),
    ]);
    const stopping = stopSignal();
    startLogging("Subspace server", values.log_level, values.log_format);
    using notifier = openNotifier(values.notify_fd);
    using service = new Service();
    await sayWhatIsMissing(values, prepareFds(values.max_fds, values.max_connections));
    const options: ServerOptions = {
      socket: values.socket,
      ...shadowsOf(values),
      local: values.local,
      cleanupFilesystem: values.cleanup_filesystem,
      orphanGraceMs: values.orphan_grace,
      access: accessRules(values.allow_user, values.allow_group, values.allow_any),
      limits: {
        connectionsMax: values.max_connections,
        requestsInFlightMax: values.max_requests_in_flight,
        frameBytesMax: values.max_frame_bytes,
      },
      shadowPatience: { dumpMs: values.dump_timeout },
      takeoverMs: values.takeover_timeout,
      standalone: true,
    };
    const starting = (values.takeover ? Server.takeOver(options) : Server.start(options)).catch((error) => {
      throw startError("Error running Subspace server", error);
    });
    // A shadow that does not speak can hold the start up for a while.
    const server = await Promise.race([starting, stopping.then(() => null)]);
    await reserved;
    if (server === null) return ExitCode.ok;
    notifier.notify(Notice.ready);
    service.ready(
      `serving ${values.socket}, ${server.keepsState ? "with" : "without"} a shadow`,
      values.takeover,
    );
    const takenOver = await Promise.race([stopping.then(() => false), server.takenOver.then(() => true)]);
    // To its manager the service goes on, as another process.
    if (!takenOver) service.stopping();
    await server.stop(values.forget_on_exit);
    notifier.notify(Notice.stopped);
    return ExitCode.ok;
  },
};

/** The first of `--shadow_socket` is the primary shadow; the secondary has a flag of its own, or is the next. */
function shadowsOf(values: FlagValues<typeof serverFlags>): ServerOptions {
  const named = [...values.shadow_socket];
  const shadowSocket = named.shift() ?? "";
  const secondaryShadowSocket = values.secondary_shadow_socket || (named.shift() ?? "");
  const recovery = {
    prefer: values.prefer_shadow,
    onFailure: values.on_recovery_failure,
    trusted: accessRules(values.allow_shadow_user, []),
    more: named,
  };
  return { shadowSocket, secondaryShadowSocket, recovery };
}

/** Says in a line each what this server will not do, whatever its flags say, and what it has too little of. */
async function sayWhatIsMissing(
  values: FlagValues<typeof serverFlags>,
  fewFds: string | null,
): Promise<void> {
  const network = networkFlagsSet(values);
  if (values.local && network.length === 0 && values.plugins.length === 0 && fewFds === null) return;
  const { getLogger } = await import("@logtape/logtape");
  const log = getLogger(["subspace", "server"]);
  if (fewFds !== null) log.warning("{fewFds}", { fewFds });
  if (network.length > 0) {
    log.warning("Bridging to other machines is not there yet: {flags} without effect", {
      flags: `${network.join(", ")} ${network.length === 1 ? "is" : "are"}`,
    });
  } else if (!values.local) {
    log.info("Bridging to other machines is not there yet: serving this one only, as with --local");
  }
  if (values.plugins.length > 0) {
    log.warning("Plugins are C++ objects, which this server cannot load: going on without {plugins}", {
      plugins: values.plugins.join(", "),
    });
  }
}

if (import.meta.main) await main(program, Deno.args);
