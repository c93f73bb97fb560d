/** Whole deployments of real processes: server, shadows and clients, each the C++ one or ours. */

import { create } from "@bufbuild/protobuf";
import { listDirectory } from "../ffi/directory.ts";
import { closeAll } from "../ffi/fd.ts";
import { unlinkFile, unlinkNamed } from "../ffi/memory_object.ts";
import { connectAbstract } from "../ffi/unix_socket.ts";
import { type ChannelInfoProto, type Request, RequestSchema, type Response } from "../proto/subspace_pb.ts";
import { splitObjectName } from "../shm/buffer_names.ts";
import { responseCodec, sendRequest } from "../wire/client_link.ts";
import { Connection } from "../wire/connection.ts";
import { cppFolder, PATIENCE_MS, Program } from "./program.ts";

/** Who made a part of a deployment. */
export type Maker = "cpp" | "ours";

/** Starts a server and waits until it accepts connections. */
export async function startServer(
  maker: Maker,
  socket: string,
  shadows: readonly string[] = [],
): Promise<Program> {
  const [primary, secondary] = shadows;
  const args = ["--local", `--socket=${socket}`];
  if (primary !== undefined) args.push(`--shadow_socket=${primary}`);
  if (secondary !== undefined) args.push(`--secondary_shadow_socket=${secondary}`);
  const program = maker === "cpp"
    ? Program.start(`${cppFolder}/subspace_server`, args)
    : Program.deno("cli/server.ts", args);
  await untilServed(socket, program);
  return program;
}

/** Starts a shadow and waits until it accepts connections. */
export async function startShadow(maker: Maker, socket: string): Promise<Program> {
  const args = [`--socket=${socket}`];
  const program = maker === "cpp"
    ? Program.start(`${cppFolder}/subspace_shadow`, args)
    : Program.deno("cli/shadow.ts", args);
  await program.line(/Shadow listening on/);
  return program;
}

/** Starts the reference's `pub` or `sub`, or ours that takes the same flags and prints the same lines. */
export function startClient(maker: Maker, kind: "pub" | "sub", args: readonly string[]): Program {
  return maker === "cpp"
    ? Program.start(`${cppFolder}/${kind}`, [...args])
    : Program.deno(`tests/peers/${kind}.ts`, [...args]);
}

/** Asks a server one thing, over a connection of its own. */
export async function ask(socket: string, request: Request["request"]): Promise<Response["response"]> {
  using connection = new Connection(connectAbstract(socket));
  const timer = setTimeout(() => connection.close(new Error("it does not answer")), PATIENCE_MS);
  sendRequest(connection, create(RequestSchema, { request }));
  const incoming = await connection.receive(responseCodec);
  clearTimeout(timer);
  if (incoming === null) throw new Error(`the server closed the connection: ${connection.failure?.message}`);
  closeAll(incoming.fds);
  return incoming.message.response;
}

/** The id of a server's session, as it tells its clients. */
export async function sessionOf(socket: string): Promise<bigint> {
  const value = {
    $typeName: "subspace.InitRequest",
    clientName: "session",
    wantExtensions: false,
    clientToken: 0n,
  } as const;
  const response = await ask(socket, { case: "init", value });
  if (response.case !== "init") throw new Error(`the server answered ${response.case}`);
  return response.value.sessionId;
}

/** What a server says about one channel; undefined where it has none of that name. */
export async function channelInfo(socket: string, channel: string): Promise<ChannelInfoProto | undefined> {
  const value = { $typeName: "subspace.GetChannelInfoRequest", channelName: "", wantReport: false } as const;
  const response = await ask(socket, { case: "getChannelInfo", value });
  if (response.case !== "getChannelInfo") throw new Error(`the server answered ${response.case}`);
  return response.value.channels.find(({ name }) => name === channel);
}

/** Waits until a condition holds. */
export async function until(what: string, condition: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!await condition()) {
    if (Date.now() > deadline) throw new Error(`still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Waits until a server answers, and so has recovered if it had to. */
export async function untilServed(socket: string, program: Program): Promise<void> {
  await until(`${program.name} serves ${socket}`, async () => {
    if (program.ended) throw new Error(`${program.name} ended:\n${program.lines.join("\n")}`);
    try {
      await ask(socket, {
        case: "init",
        value: {
          $typeName: "subspace.InitRequest",
          clientName: "test",
          wantExtensions: false,
          clientToken: 0n,
        },
      });
      return true;
    } catch {
      return false;
    }
  });
}

/** The ids of all sessions that these programs spoke of. */
export function sessionsOf(programs: readonly Program[]): Set<string> {
  return new Set(
    programs.flatMap(({ lines }) => lines.flatMap((line) => line.match(/(?<=session_id=)\d+/g) ?? [])),
  );
}

/** Message buffers in /dev/shm of a session. */
export function buffersOf(session: string): string[] {
  return listDirectory("/dev/shm").filter((name) => name.startsWith(`subspace_${session}_`));
}

/** Files in /tmp that describe parts of split buffers of a session. */
export function splitFilesOf(session: string): string[] {
  return listDirectory("/tmp").filter((name) => name.startsWith(`subspace_${session}_`)).map((name) =>
    `/tmp/${name}`
  );
}

/** Removes the buffers that killed servers left behind. */
export function removeBuffers(sessions: Iterable<string>): void {
  for (const session of sessions) {
    for (const name of buffersOf(session)) unlinkNamed(name);
    for (const path of splitFilesOf(session)) {
      unlinkFile(path);
      unlinkNamed(splitObjectName(path));
    }
  }
}
