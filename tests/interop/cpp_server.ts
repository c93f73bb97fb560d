/** Tests of our client on the C++ server, with C++ publishers and subscribers. */

import { Client } from "../../mod.ts";
import { removeBuffers, sessionOf, startServer } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { cppFolder, mayRun, Program, uniqueSocket } from "../program.ts";
import { havePeers } from "./peer_messages.ts";

const ignore = !mayRun || !havePeers;
const reason = ignore
  ? ` (skipped: ${mayRun ? "SUBSPACE_CPP_BIN names no folder with peer_pub" : "needs permission to run"})`
  : "";

/** Starts a C++ publisher or subscriber of the channel `/f`. */
export type StartPeer = (name: "peer_pub" | "peer_sub", ...args: string[]) => Program;

/** What a test has to do with. */
export interface CppServer {
  readonly client: Client;
  readonly peer: StartPeer;
  readonly server: Program;
  connect(): Promise<Client>;
}

/** A test with a C++ server of its own. */
export function cppTest(name: string, run: (server: CppServer) => Promise<void>): void {
  const fn = () =>
    withBalancedFds(async () => {
      const socket = uniqueSocket("interop");
      await using programs = new AsyncDisposableStack();
      const sessions = new Set<string>();
      programs.defer(() => removeBuffers(sessions)); // When all programs are gone.
      const server = programs.use(await startServer("cpp", socket));
      sessions.add(String(await sessionOf(socket)));
      const peer: StartPeer = (name, ...args) =>
        programs.use(Program.start(`${cppFolder}/${name}`, [`--socket=${socket}`, "--channel=/f", ...args]));
      const connect = () => Client.connect({ socket, name: "case" });
      await using client = await connect();
      await run({ client, peer, server, connect });
    });
  Deno.test({ name: name + reason, ignore, fn });
}
