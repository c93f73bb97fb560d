/**
 * What goes wrong around recovery in the reference, and what happens with ours in the same situation.
 *
 * Each scenario runs with our programs everywhere, and with the C++ ones where they are at hand; what those did is
 * recorded in `recorded.json`, and must be what they still do.
 */

import assert from "node:assert/strict";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import { Connection } from "../../wire/connection.ts";
import { closeDump, receiveDump } from "../../wire/state_dump.ts";
import {
  ask,
  channelInfo,
  type Maker,
  removeBuffers,
  sessionsOf,
  startServer,
  startShadow,
  until,
} from "../deployment.ts";
import { asOtherUser, mayBeOthers } from "../other_user.ts";
import { cppFolder, mayRun, Program, uniqueSocket } from "../program.ts";
import { RawClient } from "../raw_client.ts";
import { Core } from "../server/core.ts";
import { Peer } from "../shadow/peer.ts";
import recorded from "./recorded.json" with { type: "json" };

/** What can be seen from outside. */
type Sight = Record<string, unknown>;

/** How long the reference gets to do what it does not do. What ours do is waited for. */
const NEVER_MS = 1500;

/** Programs of one maker, on sockets of their own. */
class Stage implements AsyncDisposable {
  readonly socket = uniqueSocket("server");
  readonly shadowSocket = uniqueSocket("shadow");
  readonly #programs: Program[] = [];

  constructor(readonly maker: Maker) {}

  keep(program: Program): Program {
    this.#programs.push(program);
    return program;
  }

  async shadow(socket = this.shadowSocket): Promise<Program> {
    return this.keep(await startShadow(this.maker, socket));
  }

  async server(shadows = [this.shadowSocket]): Promise<Program> {
    return this.keep(await startServer(this.maker, this.socket, shadows));
  }

  /** A process of ours with a reliable subscriber. */
  async reader(channel: string): Promise<Program> {
    const args = ["subscribe", this.socket, channel, "reliable"];
    const reader = this.keep(Program.deno("tests/peers/stream.ts", args));
    await reader.line(/"ready":true/);
    return reader;
  }

  /** Leaves state in a shadow, of a server that is gone. */
  async leave(channels: readonly string[], socket = this.shadowSocket): Promise<void> {
    {
      await using core = await Core.start({ primary: socket });
      for (const name of channels) core.publisher(core.channel(name), { processId: 0n });
    }
    const all = async () => (await this.held(socket)).length === channels.length;
    await until(`the shadow has ${channels.length} channels`, all);
  }

  /** The names of channels that a shadow gives to whoever asks, those of servers left out; none where nobody listens. */
  async held(socket = this.shadowSocket): Promise<string[]> {
    try {
      using connection = new Connection(connectAbstract(socket));
      const dump = await receiveDump(connection);
      closeDump(dump);
      return [...dump.channels.keys()].filter((name) => !name.startsWith("/subspace/")).sort();
    } catch {
      return [];
    }
  }

  /** The names of a server's channels, its own left out. */
  async served(): Promise<string[]> {
    const value = {
      $typeName: "subspace.GetChannelInfoRequest",
      channelName: "",
      wantReport: false,
    } as const;
    const response = await ask(this.socket, { case: "getChannelInfo", value });
    assert(response.case === "getChannelInfo");
    return response.value.channels.map(({ name }) => name).filter((name) => !name.startsWith("/subspace/"))
      .sort();
  }

  /** Whether something comes to hold: with ours it must in the end, with the reference it has its time. */
  async comesTrue(what: string, condition: () => Promise<boolean>): Promise<boolean> {
    if (this.maker === "ours") {
      await until(what, condition);
      return true;
    }
    for (const end = Date.now() + NEVER_MS; Date.now() < end;) {
      if (await condition()) return true;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs) await program.kill();
    removeBuffers(sessionsOf(this.#programs));
  }
}

interface Hole {
  readonly name: keyof typeof recorded;
  readonly run: (stage: Stage) => Promise<Sight>;
  readonly ours: Sight;
  /** Why it cannot be tried here; null where it can. */
  readonly missing?: string | null;
  /** Why the reference's part is only recorded. */
  readonly onlyRecorded?: boolean;
}

const holes: Hole[] = [
  {
    name: "a recovery that fails",
    async run(stage) {
      await stage.shadow();
      await stage.leave(["/good"]);
      {
        // A server goes on with it, and says of a second channel that it has the id of the first.
        await using core = await Core.start({ primary: stage.shadowSocket });
        const { physical } = core.channel("/bad");
        Object.assign(physical, { id: 0 });
        core.publisher(physical.channel, { processId: 0n });
        core.table.settingsChanged(physical);
      }
      await until("the shadow has both", async () => (await stage.held()).length === 2);
      await stage.server();
      return {
        recovered: (await stage.served()).length,
        "still to be had": await stage.held(
          stage.maker === "ours" ? `${stage.shadowSocket}.previous` : undefined,
        ),
      };
    },
    ours: { recovered: 1, "still to be had": ["/bad", "/good"] },
  },
  {
    name: "a server that dies while it sends its state",
    async run(stage) {
      await stage.shadow();
      const names = Array.from({ length: 100 }, (_, i) => `/c${i}`);
      await stage.leave(names);
      {
        using successor = new Peer(stage.shadowSocket);
        const { sessionId, scb, channels } = await successor.dump();
        successor.send({ case: "init", value: { sessionId } }, [scb!]);
        for (const name of names.slice(0, 50)) {
          const { info, ccb, bcb } = channels.get(name)!;
          successor.send({ case: "createChannel", value: info }, [ccb, bcb]);
        }
        await successor.connection.drained();
        closeDump({ sessionId, scb, channels });
      }
      if (stage.maker === "cpp") await until("it is taken in", async () => (await stage.held()).length < 100);
      return { kept: (await stage.held()).length };
    },
    ours: { kept: 100 },
  },
  {
    name: "a shadow that is stopped",
    async run(stage) {
      const shadow = await stage.shadow();
      await stage.server();
      using client = new RawClient(stage.socket);
      shadow.signal("SIGSTOP");
      let answered = 0;
      const asking = (async () => {
        for (; answered < 1500; answered++) {
          const id = await client.publisher("/c");
          await client.remove("publisher", "/c", id);
        }
      })().catch(() => {});
      const all = await stage.comesTrue(
        "all requests are answered",
        () => Promise.resolve(answered === 1500),
      );
      shadow.signal("SIGCONT");
      await asking;
      return { "requests answered": all };
    },
    ours: { "requests answered": true },
  },
  {
    name: "a shadow that was away",
    async run(stage) {
      const shadow = await stage.shadow();
      await stage.server();
      await shadow.kill();
      using client = new RawClient(stage.socket);
      // The reference notices when it has something to say.
      await client.publisher("/before");
      await stage.shadow();
      await client.publisher("/new");
      const known = await stage.comesTrue("it is told", async () => (await stage.held()).includes("/new"));
      return { "knows a new channel": known };
    },
    ours: { "knows a new channel": true },
  },
  {
    name: "a primary shadow that is stale",
    async run(stage) {
      const secondary = uniqueSocket("secondary");
      await stage.shadow();
      await stage.shadow(secondary);
      await stage.leave(["/old"]);
      await stage.leave(["/old", "/new"], secondary);
      await stage.server([stage.shadowSocket, secondary]);
      return { recovered: await stage.served() };
    },
    ours: { recovered: ["/new", "/old"] },
  },
  {
    name: "a client that died meanwhile",
    async run(stage) {
      await stage.shadow();
      const server = await stage.server();
      const reader = await stage.reader("/c");
      using stays = new RawClient(stage.socket);
      await stays.publisher("/c", { numSlots: 3 });
      await until("the shadow knows", async () => (await stage.held()).includes("/c"));
      await server.kill();
      await reader.kill();
      await stage.server();
      await stage.comesTrue("it is gone", async () => (await channelInfo(stage.socket, "/c"))?.numSubs === 0);
      const users = (await channelInfo(stage.socket, "/c"))!.numSubs;
      using client = new RawClient(stage.socket);
      const room = await client.subscriber("/c").then(() => true, () => false);
      return { users, "room for another": room };
    },
    ours: { users: 0, "room for another": true },
  },
  {
    name: "a client whose server is away for a while",
    async run(stage) {
      await stage.shadow();
      const server = await stage.server();
      const reader = await stage.reader("/c");
      await server.kill();
      await reader.line(/"connected":false/);
      await stage.server();
      const participants = async () => (await channelInfo(stage.socket, "/c"))?.participants ?? [];
      return { back: await stage.comesTrue("it is back", async () => (await participants()).length === 1) };
    },
    ours: { back: true },
    onlyRecorded: true,
  },
  {
    name: "another user of the machine",
    async run(stage) {
      await stage.shadow();
      await stage.leave(["/c"]);
      using stranger = new Connection(asOtherUser(() => connectAbstract(stage.shadowSocket)));
      const taken = await receiveDump(stranger).then((dump) => {
        closeDump(dump);
        return true;
      }, () => false);
      const peer: Peer = Object.assign(Object.create(Peer.prototype), { connection: stranger });
      if (!stranger.closed) peer.send({ case: "init", value: { sessionId: 666n } });
      await stranger.drained();
      const wiped = stage.maker === "ours"
        ? !(await stage.held()).includes("/c")
        : await stage.comesTrue("it is wiped", async () => (await stage.held()).length === 0);
      return { "takes the memory": taken, "wipes the state": wiped };
    },
    ours: { "takes the memory": false, "wipes the state": false },
    missing: mayBeOthers ? null : "needs to be root's",
  },
];

for (const { name, run, ours, missing = null, onlyRecorded = false } of holes) {
  for (const maker of ["ours", "cpp"] as const) {
    const reason = !mayRun
      ? "needs permission to run programs"
      : missing ?? (maker === "cpp" && onlyRecorded
        ? "only recorded: specification, section 3.6"
        : maker === "cpp" && cppFolder === undefined
        ? "SUBSPACE_CPP_BIN is not set"
        : null);
    const expected: Sight = maker === "ours" ? ours : recorded[name];
    const shown = Object.entries(expected).map(([what, value]) => `${what} ${JSON.stringify(value)}`).join(
      ", ",
    );
    Deno.test({
      name: `${name}, ${maker === "ours" ? "ours" : "C++"}: ${shown}` +
        (reason === null ? "" : ` (skipped: ${reason})`),
      ignore: reason !== null,
      async fn() {
        await using stage = new Stage(maker);
        assert.deepEqual(await run(stage), expected);
        assert.notDeepEqual(ours, recorded[name], "both do the same");
      },
    });
  }
}
