/** The flags of `subspace-server`: all those of the reference (specification, section 8.1). */

import { anybodyFlag, groupsFlag, usersFlag } from "./access_flags.ts";
import { maxFdsFlag } from "./fd_limit.ts";
import {
  byteCount,
  choice,
  duration,
  flag,
  FlagError,
  integer,
  list,
  onOff,
  text,
  type ValueType,
} from "./flags.ts";
import { logFormatFlag, logLevelFlag } from "./log_level.ts";

const port = integer(0, 65535, "PORT");
const LIMITS = "Limits";
const NETWORK = "Network (accepted, but servers of several machines are not connected yet)";

/** A port, or a range of ports; empty for any. */
const portRange: ValueType<string> = {
  placeholder: "PORT or START-END",
  expected: "PORT or START-END",
  parse(value) {
    if (value === "") return value;
    const ports = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(value)?.slice(1).filter((it) => it !== undefined).map(
      Number,
    );
    const valid = ports !== undefined && ports[0] <= ports.at(-1)! &&
      ports.every((it) => it > 0 && it <= 65535);
    if (!valid) throw new FlagError(`Invalid --bridge_ports value '${value}'; expected PORT or START-END`);
    return value;
  },
};

/** Plugins, as `name:path`. */
const pluginList: ValueType<readonly string[]> = {
  ...list("NAME:PATH,..."),
  parse(value) {
    const plugins = value === "" ? [] : value.split(",");
    const wrong = plugins.find((plugin) => !plugin.includes(":"));
    if (wrong !== undefined) throw new FlagError(`Plugin '${wrong}' is not in name:path format`);
    return plugins;
  },
};

export const serverFlags = {
  socket: flag({
    type: text("NAME"),
    default: "/tmp/subspace",
    description: "Abstract Unix socket to listen on",
  }),
  shadow_socket: flag({
    type: { ...list("NAME"), merge: (earlier, later) => [...earlier, ...later] },
    default: [],
    description: "Socket of a shadow that keeps the state; may be given for each of any number of shadows",
  }),
  prefer_shadow: flag({
    type: text("NAME"),
    default: "",
    description: "Socket of the shadow to recover from; by default the one with the freshest state",
  }),
  on_recovery_failure: flag<"skip" | "refuse" | "fresh">({
    type: choice("WHAT", ["skip", "refuse", "fresh"]),
    default: "skip",
    description: "If a channel cannot be recovered: go on without it, do not start, or begin with nothing",
  }),
  secondary_shadow_socket: flag({
    type: text("NAME"),
    default: "",
    description: "Socket of a second shadow, asked when the first one is gone; empty for none",
  }),
  log_level: logLevelFlag,
  log_format: logFormatFlag,
  local: flag({ type: onOff, default: false, description: "Serve this machine only" }),
  cleanup_filesystem: flag({
    type: onOff,
    default: false,
    description:
      "Remove /dev/shm/subspace_* at the start if nothing was recovered; not where other servers run",
  }),
  takeover: flag({
    type: onOff,
    default: false,
    description:
      "Go on in the place of the server that runs, which ends then; no client notices. Starts one if none runs",
  }),
  forget_on_exit: flag({
    type: onOff,
    default: false,
    description: "When stopped, remove all channels and their memory, in the shadows too",
  }),
  notify_fd: flag({
    type: integer(-1, 0x7fff_ffff, "FD"),
    default: -1,
    description: "Open file descriptor to write to, as int64: 1 when ready, 2 when stopped; -1 for none",
  }),
  machine: flag({
    type: text("NAME"),
    default: "",
    description: "Name of this machine; accepted, without effect",
  }),
  num_asio_threads: flag({
    type: integer(-0x8000_0000, 0x7fff_ffff),
    default: 1,
    description: "Accepted, without effect",
  }),
  plugins: flag({
    type: pluginList,
    default: [],
    description: "Accepted, without effect: plugins are C++ objects",
  }),
  allow_user: usersFlag("Users whose processes may be clients; may be repeated"),
  allow_group: groupsFlag("Groups whose members may be clients; may be repeated"),
  allow_shadow_user: usersFlag("Users whose shadows get the state, and all memory with it; may be repeated"),
  allow_any: anybodyFlag("Let every user of this machine be a client, as the C++ server does"),
  max_connections: flag({
    type: integer(1, 1_000_000),
    default: 2048,
    description: "Clients at a time; one more is turned away",
    group: LIMITS,
  }),
  max_requests_in_flight: flag({
    type: integer(1, 1_000_000),
    default: 64,
    description: "Answers that a client has not taken yet before its next request waits",
    group: LIMITS,
  }),
  max_frame_bytes: flag({
    type: byteCount,
    default: 1024 * 1024,
    description: "Longest request; a client that sends a longer one is disconnected",
    group: LIMITS,
  }),
  orphan_grace: flag({
    type: { ...duration, parse: (value) => value === "0" ? 0 : duration.parse(value) },
    default: 0,
    description:
      "How long after a recovery a user is kept whose client does not come back, though its process " +
      "lives; 0 for ever",
    group: LIMITS,
  }),
  max_fds: maxFdsFlag,
  dump_timeout: flag({
    type: duration,
    default: 10_000,
    description: "How long a shadow may take at the start to send its whole state",
    group: LIMITS,
  }),
  takeover_timeout: flag({
    type: duration,
    default: 5_000,
    description:
      "How long a server that is taken over serves nobody before it goes on by itself, and the other gives up",
    group: LIMITS,
  }),
  disc_port: flag({ type: port, default: 6502, description: "Discovery port", group: NETWORK }),
  peer_port: flag({ type: port, default: 6502, description: "Discovery port of the peer", group: NETWORK }),
  peer_address: flag({ type: text("HOST"), default: "", description: "Bridge peer", group: NETWORK }),
  interface: flag({ type: text("NAME"), default: "", description: "Network interface", group: NETWORK }),
  tcp_discovery: flag({ type: onOff, default: false, description: "Discovery over TCP", group: NETWORK }),
  bridge_ports: flag({ type: portRange, default: "", description: "TCP ports of bridges", group: NETWORK }),
  bridge_ports_fallback_ephemeral: flag({
    type: onOff,
    default: false,
    description: "Any TCP port if those are in use",
    group: NETWORK,
  }),
  bridge_advertise_address: flag({
    type: text("ADDRESS"),
    default: "",
    description: "Address of bridges that peers are told",
    group: NETWORK,
  }),
  vsock: flag({ type: onOff, default: false, description: "Bridges over vsock", group: NETWORK }),
  vsock_cid: flag({
    type: integer(-1, 0x7fff_ffff, "CID"),
    default: -1,
    description: "Local vsock context id that peers are told",
    group: NETWORK,
  }),
};

/** Names of the network flags that say something other than their default. */
export function networkFlagsSet(values: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(serverFlags)
    .filter(([name, { group, default: usual }]) => group === NETWORK && values[name] !== usual)
    .map(([name]) => `--${name}`);
}
