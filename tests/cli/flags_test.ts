import assert from "node:assert/strict";
import {
  choice,
  duration,
  flag,
  FlagError,
  integer,
  list,
  onOff,
  parseFlags,
  text,
} from "../../cli/flags.ts";
import { renderHelp } from "../../cli/help.ts";
import { logLevelFlag } from "../../cli/log_level.ts";
import { program as inspectProgram } from "../../cli/inspect.ts";
import { program as serverProgram } from "../../cli/server.ts";
import { networkFlagsSet, serverFlags } from "../../cli/server_flags.ts";
import { program as shadowProgram } from "../../cli/shadow.ts";
import { nearest } from "../../cli/suggestion.ts";

const flags = {
  socket: flag({ type: text("NAME"), default: "/tmp/x", description: "" }),
  notify_fd: flag({ type: integer(-1, 100), default: -1, description: "" }),
  local: flag({ type: onOff, default: false, description: "" }),
  north: flag({ type: onOff, default: true, description: "" }),
  colour: flag({ type: choice("COLOUR", ["red", "green"]), default: "red", description: "" }),
  plugins: flag({ type: list("NAME,..."), default: [], description: "" }),
  timeout: flag({ type: duration, default: 5000, description: "" }),
  log_level: logLevelFlag,
};

const good: [argv: string, expected: Partial<Record<keyof typeof flags, unknown>>, positionals?: string[]][] =
  [
    ["", { socket: "/tmp/x", notify_fd: -1, local: false, north: true, plugins: [], timeout: 5000 }],
    ["--socket=/tmp/a", { socket: "/tmp/a" }],
    ["--socket /tmp/a", { socket: "/tmp/a" }],
    ["-socket=/tmp/a", { socket: "/tmp/a" }],
    ["-socket /tmp/a --local", { socket: "/tmp/a", local: true }],
    ["--socket=", { socket: "" }],
    ["--socket=a=b:c.d", { socket: "a=b:c.d" }],
    ["--socket=first --socket second", { socket: "second" }],
    ["--socket --local", { socket: "--local", local: false }],
    ["--notify_fd -1", { notify_fd: -1 }],
    ["--notify-fd=7", { notify_fd: 7 }],
    ["--notify_fd 0x10", { notify_fd: 16 }],
    ["--notify_fd=-0x1", { notify_fd: -1 }],
    ["--local", { local: true }],
    ["-local", { local: true }],
    ["--nolocal", { local: false }],
    ["--no-local", { local: false }],
    ["--local --nolocal", { local: false }],
    ["--nolocal --local", { local: true }],
    ...["true", "t", "yes", "y", "1", "TRUE", "Yes"].map((word) =>
      [`--local=${word}`, { local: true }] as [string, { local: boolean }]
    ),
    ...["false", "f", "no", "n", "0", "False"].map((word) =>
      [`--local=${word}`, { local: false }] as [string, { local: boolean }]
    ),
    ["--north --nonorth", { north: false }],
    ["--colour green", { colour: "green" }],
    ["--plugins=a:/x,b:/y", { plugins: ["a:/x", "b:/y"] }],
    ["--timeout=250ms", { timeout: 250 }],
    ["--timeout 1.5s", { timeout: 1500 }],
    ["--timeout 2", { timeout: 2000 }],
    ["--timeout 1m", { timeout: 60_000 }],
    ["--log_level=verbose", { log_level: "verbose" }],
    ["verb --local other", { local: true }, ["verb", "other"]],
    ["--local -- --socket=a -", { local: true, socket: "/tmp/x" }, ["--socket=a", "-"]],
    ["-", {}, ["-"]],
  ];

Deno.test("flags are taken in every form that users of Abseil type", () => {
  for (const [argv, expected, positionals = []] of good) {
    const parsed = parseFlags(flags, argv === "" ? [] : argv.split(" "));
    for (const [name, value] of Object.entries(expected)) {
      assert.deepEqual(parsed.values[name as keyof typeof flags], value, `${argv}: ${name}`);
    }
    assert.deepEqual(parsed.positionals, positionals, argv);
  }
});

const bad: [argv: string, message: string][] = [
  ["--socke=a", "ERROR: Unknown command line flag 'socke'; did you mean --socket?"],
  ["--scoket", "ERROR: Unknown command line flag 'scoket'; did you mean --socket?"],
  ["--notify", "ERROR: Unknown command line flag 'notify'; did you mean --notify_fd?"],
  ["--noloca", "ERROR: Unknown command line flag 'noloca'; did you mean --nolocal?"],
  ["--bogus=1", "ERROR: Unknown command line flag 'bogus'"],
  ["--constructor=1", "ERROR: Unknown command line flag 'constructor'"],
  ["--socket", "ERROR: Missing the value for the flag 'socket'"],
  ["--nosocket", "ERROR: Negative form is not valid for the flag 'socket'"],
  ["--nolocal=true", "ERROR: Negative form with assignment is not valid for the flag 'local'"],
  ["--local=maybe", "ERROR: Illegal value 'maybe' specified for flag 'local'; expected true or false"],
  ["--local=", "ERROR: Illegal value '' specified for flag 'local'; expected true or false"],
  [
    "--notify_fd=",
    "ERROR: Illegal value '' specified for flag 'notify_fd'; expected a whole number from -1 to 100",
  ],
  [
    "--notify_fd=1.5",
    "ERROR: Illegal value '1.5' specified for flag 'notify_fd'; expected a whole number from -1 to 100",
  ],
  [
    "--notify_fd=101",
    "ERROR: Illegal value '101' specified for flag 'notify_fd'; expected a whole number from -1 to 100",
  ],
  ["--colour=blue", "ERROR: Illegal value 'blue' specified for flag 'colour'; expected one of red, green"],
  [
    "--timeout=0",
    "ERROR: Illegal value '0' specified for flag 'timeout'; expected a time above zero such as 500ms, 2s or 1m",
  ],
  ["--log_level=loud", "Unknown log level loud; expected one of verbose, debug, info, warning, error, fatal"],
];

Deno.test("a wrong command line is refused with the reason and what would be right", () => {
  for (const [argv, message] of bad) {
    assert.throws(() => parseFlags(flags, argv.split(" ")), new FlagError(message), argv);
  }
});

Deno.test("nothing is suggested for what is like nothing", () => {
  assert.equal(nearest("local", ["local"]), "local");
  assert.equal(nearest("sockte", ["shadow_socket", "socket"]), "socket");
  assert.equal(nearest("x", ["y", "ab"]), null);
  assert.equal(nearest("completely", ["local", "socket"]), null);
});

/** Specification, section 8.1. */
const referenceFlags = {
  socket: "/tmp/subspace",
  disc_port: 6502,
  peer_port: 6502,
  peer_address: "",
  bridge_ports: "",
  bridge_ports_fallback_ephemeral: false,
  log_level: "info",
  interface: "",
  local: false,
  tcp_discovery: false,
  bridge_advertise_address: "",
  notify_fd: -1,
  machine: "",
  vsock: false,
  vsock_cid: -1,
  cleanup_filesystem: false,
  plugins: [],
  shadow_socket: [],
  secondary_shadow_socket: "",
  num_asio_threads: 1,
};

Deno.test("--shadow_socket may be given for each of any number of shadows", () => {
  const { values } = parseFlags(serverFlags, [
    "--shadow_socket=/a",
    "--shadow_socket",
    "/b",
    "--shadow_socket=/c",
  ]);
  assert.deepEqual(values.shadow_socket, ["/a", "/b", "/c"]);
});

Deno.test("the server has every flag of the reference, with its default", () => {
  const values = parseFlags(serverFlags, []).values;
  const ofTheReference = Object.entries(values).filter(([name]) => Object.hasOwn(referenceFlags, name));
  assert.deepEqual(Object.fromEntries(ofTheReference), referenceFlags);
});

Deno.test("network flags that ask for something are known by name", () => {
  const { values } = parseFlags(serverFlags, ["--local", "--peer_address=h", "--disc_port=6502", "--vsock"]);
  assert.deepEqual(networkFlagsSet(values), ["--peer_address", "--vsock"]);
});

Deno.test("bridge ports and plugins are checked in the reference's words", () => {
  for (const ports of ["0", "70000", "5-3", "1-2-3", "a", "1-"]) {
    const message = `Invalid --bridge_ports value '${ports}'; expected PORT or START-END`;
    assert.throws(() => parseFlags(serverFlags, [`--bridge_ports=${ports}`]), new FlagError(message));
  }
  for (const ports of ["", "1", "1-1", "1000-65535"]) {
    assert.equal(parseFlags(serverFlags, [`--bridge_ports=${ports}`]).values.bridge_ports, ports);
  }
  const message = "Plugin 'nop' is not in name:path format";
  assert.throws(() => parseFlags(serverFlags, ["--plugins=a:/a,nop"]), new FlagError(message));
});

Deno.test("help names every flag, example and exit code, and fits its width", () => {
  for (const program of [serverProgram, shadowProgram, inspectProgram]) {
    for (const columns of [60, 80, 100, 300]) {
      const help = renderHelp(program, columns);
      for (const name of [...Object.keys(program.flags), "help", "version"]) {
        assert.match(help, new RegExp(`^  --${name}\\b`, "m"));
      }
      for (const { command } of program.examples) assert(help.includes(`\n  ${command}\n`), command);
      for (const code of Object.keys(program.exitCodes)) assert.match(help, new RegExp(`^  ${code}\\s`, "m"));
      const commands = new Set(program.examples.map(({ command }) => `  ${command}`));
      for (const line of help.split("\n")) {
        assert(line.length <= Math.min(Math.max(columns, 80), 100) || commands.has(line), line);
        assert(!line.endsWith(" "), JSON.stringify(line));
      }
    }
  }
});

Deno.test("who may connect is a list of names and ids, and repeating the flag adds to it", () => {
  const { allow_user, allow_group } = parseFlags(serverFlags, [
    "--allow_user=root,1000",
    "--allow_user=1001",
    "--allow_group=0",
    "--allow_group=root",
  ]).values;
  assert.deepEqual(allow_user.map(({ id }) => id), [0, 1000, 1001]);
  assert.deepEqual(allow_group.map(({ id }) => id), [0, 0]);
  assert.throws(
    () => parseFlags(serverFlags, ["--allow_user=no such user"]),
    /^FlagError: ERROR: There is no user 'no such user' on this machine; an id is fine too$/,
  );
});

Deno.test("sizes are bytes, KiB or MiB", () => {
  const bytes = (text: string) =>
    parseFlags(serverFlags, [`--max_frame_bytes=${text}`]).values.max_frame_bytes;
  assert.deepEqual([bytes("4096"), bytes("64KiB"), bytes("2MiB")], [4096, 65536, 2 * 1024 * 1024]);
  for (const wrong of ["", "0", "-1", "1GB", "many"]) assert.throws(() => bytes(wrong), FlagError);
});
