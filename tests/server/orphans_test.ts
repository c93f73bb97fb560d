/** What becomes of users that were recovered and whose processes have ended, or may have. */

import assert from "node:assert/strict";
import { Client, type Publisher } from "../../mod.ts";
import { processExists, processStart } from "../../ffi/process.ts";
import { Server, type ServerOptions } from "../../server/server.ts";
import { systemHost } from "../../server/host.ts";
import { Shadow } from "../../shadow/shadow.ts";
import type { ChannelRecord } from "../../wire/state_dump.ts";
import { until } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { mayRun, Program, uniqueSocket } from "../program.ts";
import { RawClient } from "./raw_client.ts";
import { channelOf, DEAD_PID } from "./running_server.ts";

/** Longer than any test: whoever is reaped before was noticed at once. */
const NEVER_MS = 1e9;

/** Servers that follow one another, and the shadow that keeps their state. */
class Dynasty implements AsyncDisposable {
  readonly socket = uniqueSocket("server");
  readonly #shadowSocket = uniqueSocket("shadow");
  readonly #shadow = Shadow.start({ socket: this.#shadowSocket });
  server!: Server;

  static async found(options: ServerOptions = {}): Promise<Dynasty> {
    const dynasty = new Dynasty();
    await dynasty.#crown(options);
    return dynasty;
  }

  async #crown(options: ServerOptions): Promise<void> {
    const { socket } = this, shadowSocket = this.#shadowSocket;
    const quiet = { publishServerChannels: false, orphanCheckMs: NEVER_MS };
    this.server = await Server.start({ socket, shadowSocket, ...quiet, ...options });
  }

  /** The next server. @param meanwhile Done while there is none. */
  async succeed(
    options: ServerOptions = {},
    meanwhile: () => Promise<unknown> = async () => {},
  ): Promise<Server> {
    await this.server.stop();
    await meanwhile();
    await this.#crown(options);
    return this.server;
  }

  /** What the shadow has of a channel, to be spoiled. */
  record(channel: string): ChannelRecord | undefined {
    return this.#shadow.state.channels.get(channel);
  }

  /** How many users a channel has; 0 where it is gone. */
  users(channel: string): number {
    return [...this.server.table.find(channel)?.users() ?? []].length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#shadow.stop();
    await until("the shadow is gone", () => !this.server.keepsState);
    await this.server.stop();
  }
}

function dynastyTest(
  name: string,
  run: (dynasty: Dynasty) => Promise<void>,
  missing: string | null = null,
): void {
  Deno.test({
    name: missing === null ? name : `${name} (skipped: ${missing})`,
    ignore: missing !== null,
    fn: () =>
      withBalancedFds(async () => {
        await using dynasty = await Dynasty.found();
        await run(dynasty);
      }),
  });
}

const noProcesses = mayRun ? null : "needs permission to run programs";

// Real processes

async function subscriberProcess({ socket }: Dynasty, wrapper: string[] = []): Promise<Program> {
  const args = ["subscribe", socket, "c", "reliable"];
  const program = Program.deno("tests/peers/stream.ts", args, ["--allow-ffi"], wrapper);
  await program.line(/"ready":true/);
  return program;
}

/** A reliable publisher that nobody but a stopped process holds up: another reader has read everything. */
async function blockedPublisher(client: Client, process: Program): Promise<Publisher> {
  const publisher = await client.createPublisher("c", { slotBytes: 64, numSlots: 8, reliable: true });
  const reader = await client.createSubscriber("c", { reliable: true });
  process.signal("SIGSTOP");
  await until("the stopped one holds it up", () => {
    for (let message = reader.read(); message !== null; message = reader.read()) message.release();
    const buffer = publisher.getBuffer(8);
    if (buffer !== null) publisher.publish(8);
    return buffer === null;
  });
  return publisher;
}

dynastyTest(
  "who is killed while there is no server is gone when one is back, and a publisher goes on",
  async (dynasty) => {
    await using reader = await subscriberProcess(dynasty);
    await using client = await Client.connect(dynasty);
    const publisher = await blockedPublisher(client, reader);
    const { table } = await dynasty.succeed({}, () => reader.kill());
    assert.equal(table.orphansReaped, 1);
    await publisher.wait({ timeoutMs: NEVER_MS });
    assert.notEqual(publisher.getBuffer(8), null);
    assert.equal(table.find("c")!.subscribers.size, 1);
  },
  noProcesses,
);

dynastyTest("who is killed later, before it came back, is gone at once", async (dynasty) => {
  await using reader = await subscriberProcess(dynasty);
  await using client = await Client.connect(dynasty);
  const publisher = await blockedPublisher(client, reader);
  const { table } = await dynasty.succeed();
  await until("the publisher is back", () => client.connected);
  assert.equal(publisher.getBuffer(8), null);
  assert.deepEqual([table.orphansReaped, dynasty.users("c")], [0, 3]);
  reader.signal("SIGKILL");
  await publisher.wait({ timeoutMs: NEVER_MS });
  assert.notEqual(publisher.getBuffer(8), null);
  assert.deepEqual([table.orphansReaped, dynasty.users("c")], [1, 2]);
}, noProcesses);

dynastyTest("who lives is kept, whatever it does", async (dynasty) => {
  await using reader = await subscriberProcess(dynasty);
  const stop = () => Promise.resolve(reader.signal("SIGSTOP"));
  const { table } = await dynasty.succeed({ orphanCheckMs: 1 }, stop);
  const user = channelOf(dynasty.server, "c").subscribers.get(0)!;
  assert.equal(user.record.info.processStart, processStart(reader.pid));
  let looks = 0;
  const { sweep } = table;
  table.sweep = () => {
    looks++;
    sweep.call(table);
  };
  await until("it was looked at twice", () => looks >= 2);
  assert.deepEqual([user.client, table.orphansReaped, dynasty.users("c")], [null, 0, 1]);
}, noProcesses);

/** How to run something in a pid namespace of its own; null where that is not allowed. */
async function ownPidNamespace(): Promise<string[] | null> {
  if (!mayRun) return null;
  for (const options of [["-pf"], ["-Urpf"]]) {
    const wrapper = ["unshare", ...options, "--kill-child"];
    await using trial = Program.start(wrapper[0], [...wrapper.slice(1), "true"]);
    if ((await trial.status()).success) return wrapper;
  }
  return null;
}

const unshare = await ownPidNamespace();

dynastyTest(
  "who lives in another pid namespace counts as alive, whatever has its id here",
  async (dynasty) => {
    await using reader = await subscriberProcess(dynasty, unshare!);
    const { table } = await dynasty.succeed({}, () => reader.kill());
    assert.equal(channelOf(dynasty.server, "c").subscribers.get(0)!.record.info.processId, 0n);
    assert.deepEqual([table.orphansReaped, dynasty.users("c")], [0, 1]);
  },
  unshare === null ? "needs permission to make a pid namespace" : null,
);

Deno.test("a process that has ended and that nobody has asked for its status is none", {
  ignore: !mayRun,
}, async () => {
  await using shell = Program.start("/bin/sh", [
    "-c",
    "sleep 0 & echo $!; exec sleep 1000",
  ]);
  const pid = Number((await shell.line(/^\d+$/))[0]);
  await until("it is a zombie", () => !processExists(pid));
  assert.match(Deno.readTextFileSync(`/proc/${pid}/stat`), /\) Z /);
});

// A machine whose processes are as a test says

const machine = (start: bigint | null, pidNamespace = systemHost.pidNamespace) => ({
  host: { ...systemHost, pidNamespace, processStart: () => start, watchProcess: () => null },
});

for (
  const [what, start, pidNamespace, kept] of [
    ["whose id another process has now is gone", 2n, 7n, false],
    ["whose id nobody has is gone", null, 7n, false],
    ["whose process lives is kept", 1n, 7n, true],
    ["whose process cannot be looked at is kept", 0n, 7n, true],
    ["is kept by a server in another pid namespace, whoever has its id there", null, 8n, true],
  ] as const
) {
  Deno.test(`an orphan ${what}`, () =>
    withBalancedFds(async () => {
      await using dynasty = await Dynasty.found(machine(1n, 7n));
      using client = await RawClient.connect(dynasty.socket);
      await client.createPublisher("c", { processId: BigInt(Deno.pid) });
      const { table } = await dynasty.succeed(machine(start, pidNamespace));
      assert.deepEqual([dynasty.users("c"), table.orphansReaped], kept ? [1, 0] : [0, 1]);
    }));
}

dynastyTest("the periodic look finds whom nothing could watch", async (dynasty) => {
  using client = await RawClient.connect(dynasty.socket);
  await client.createPublisher("c", { processId: BigInt(Deno.pid) });
  let start: bigint | null = 0n;
  const host = { ...machine(0n).host, processStart: () => start };
  await dynasty.succeed({ host, orphanCheckMs: 5 });
  assert.equal(dynasty.users("c"), 1);
  start = null;
  await until("it is gone", () => dynasty.users("c") === 0);
});

dynastyTest(
  "what a reaped user held is free: its id, its slots and its part of the capacity",
  async (dynasty) => {
    using client = await RawClient.connect(dynasty.socket), stays = await RawClient.connect(dynasty.socket);
    await stays.createPublisher("c", { numSlots: 4, subscriberQueueArenaSize: 640n, processId: DEAD_PID });
    const processId = BigInt(Deno.pid);
    const { subscriberId } = await client.createSubscriber("c", { maxActiveMessages: 2, processId });
    assert.match(
      (await stays.createSubscriber("c", { maxActiveMessages: 2 })).error,
      /Insufficient capacity/,
    );
    await dynasty.succeed(machine(null));
    using next = await RawClient.connect(dynasty.socket);
    const answer = await next.createSubscriber("c", { maxActiveMessages: 2 });
    assert.deepEqual([answer.error, answer.subscriberId, answer.subscriberQueueSize], ["", subscriberId, 16]);
  },
);

dynastyTest("--orphan_grace ends it for those too who may live", async (dynasty) => {
  using client = await RawClient.connect(dynasty.socket);
  await client.createPublisher("c", { numSlots: 16, processId: DEAD_PID });
  const { subscriberId } = await client.createSubscriber("c", { processId: BigInt(Deno.pid) });
  const graces: (() => void)[] = [];
  const timers = {
    after: (ms: number, callback: () => void) => {
      if (ms === 5000) graces.push(callback);
      return () => {};
    },
  };
  const { table } = await dynasty.succeed({ orphanGraceMs: 5000, timers });
  using back = await RawClient.connect(dynasty.socket);
  await back.createSubscriber("c", { subscriberId });
  assert.equal(dynasty.users("c"), 2);
  graces.forEach((end) => end());
  assert.deepEqual([dynasty.users("c"), table.orphansReaped], [1, 1]);
  assert.notEqual(channelOf(dynasty.server, "c").subscribers.get(subscriberId), undefined);
});

// Requests that come twice

dynastyTest("a request that was granted and not answered makes no second user", async (dynasty) => {
  using client = await RawClient.connect(dynasty.socket);
  const publisher = { numSlots: 16, requestToken: 5n, maxPublishers: 1 }, subscriber = { requestToken: 6n };
  const { publisherId } = await client.createPublisher("c", publisher);
  const { subscriberId } = await client.createSubscriber("c", subscriber);
  await dynasty.succeed();
  using again = await RawClient.connect(dynasty.socket);
  const answers = [
    await again.createPublisher("c", publisher),
    await again.createSubscriber("c", subscriber),
  ];
  assert.deepEqual(answers.map(({ error }) => error), ["", ""]);
  assert.deepEqual(answers.map((it) => "publisherId" in it ? it.publisherId : it.subscriberId), [
    publisherId,
    subscriberId,
  ]);
  assert.equal(dynasty.users("c"), 2);
  const other = await again.createSubscriber("c", { requestToken: 7n });
  assert.notEqual(other.subscriberId, subscriberId);
  assert.notEqual(
    (await again.createSubscriber("c", subscriber)).subscriberId,
    subscriberId,
    "it is none's any more",
  );
});

dynastyTest(
  "an id that somebody else has by now is not given to who says another number",
  async (dynasty) => {
    using client = await RawClient.connect(dynasty.socket);
    const publisher = { numSlots: 16, requestToken: 5n }, subscriber = { requestToken: 6n };
    const { publisherId } = await client.createPublisher("c", publisher);
    const { subscriberId } = await client.createSubscriber("c", subscriber);
    await dynasty.succeed();
    using again = await RawClient.connect(dynasty.socket);
    const other = await again.createPublisher("c", { ...publisher, publisherId, requestToken: 7n });
    assert.notEqual(other.publisherId, publisherId);
    const refused = await again.createSubscriber("c", { subscriberId, requestToken: 8n });
    assert.match(refused.error, /Invalid user id/);
    // One whose id the server does not know is found by its number all the same.
    const found = await again.createPublisher("c", { ...publisher, publisherId: 100 });
    assert.equal(found.publisherId, publisherId);
    assert.equal(
      (await again.createSubscriber("c", { ...subscriber, subscriberId })).subscriberId,
      subscriberId,
    );
  },
);

dynastyTest("requests that say no number are never taken for one that came before", async (dynasty) => {
  using client = await RawClient.connect(dynasty.socket);
  await client.createPublisher("c", { numSlots: 16 });
  await dynasty.succeed();
  using again = await RawClient.connect(dynasty.socket);
  await again.createPublisher("c", { numSlots: 16 });
  assert.equal(dynasty.users("c"), 2);
});

dynastyTest("a removal of another one that had the id before removes nobody", async (dynasty) => {
  using client = await RawClient.connect(dynasty.socket);
  const { publisherId } = await client.createPublisher("c", { numSlots: 16, requestToken: 5n });
  const { subscriberId } = await client.createSubscriber("c", { requestToken: 6n });
  for (const [token, left] of [[4n, 2], [5n, 1]] as const) {
    assert.equal((await client.removePublisher("c", publisherId, token)).error, "");
    assert.equal(dynasty.users("c"), left);
  }
  await client.createPublisher("c", { numSlots: 16 });
  for (const [token, left] of [[7n, 2], [6n, 1]] as const) {
    assert.equal((await client.removeSubscriber("c", subscriberId, token)).error, "");
    assert.equal(dynasty.users("c"), left);
  }
  // Clients of the reference's say no number; and one that was created without any is what is meant.
  const { subscriberId: theirs } = await client.createSubscriber("c");
  await client.removeSubscriber("c", theirs, 8n);
  assert.equal(dynasty.users("c"), 1);
});

dynastyTest(
  "what a client that is back does not claim is removed, and nothing of anybody else",
  async (dynasty) => {
    using client = await RawClient.connect(dynasty.socket, "", 1n);
    using other = await RawClient.connect(dynasty.socket, "", 2n),
      nameless = await RawClient.connect(dynasty.socket);
    for (const one of [client, other, nameless]) {
      await one.createSubscriber("/kept", {
        maxActiveMessages: 0,
      });
    }
    await client.createPublisher("/gone");
    const { subscriberId } = await client.createSubscriber("/claimed");
    await client.createSubscriber("/claimed");
    await dynasty.succeed();
    using back = await RawClient.connect(dynasty.socket, "", 1n);
    await back.createSubscriber("/claimed", { subscriberId });
    // Without a response: the next one is of the next request.
    back.send({ case: "removeUnclaimed", value: {} });
    await back.getChannelInfo();
    assert.deepEqual(["/gone", "/claimed", "/kept"].map((name) => dynasty.users(name)), [0, 1, 2]);
    nameless.close();
    using stranger = await RawClient.connect(dynasty.socket);
    stranger.send({ case: "removeUnclaimed", value: {} });
    await stranger.getChannelInfo();
    assert.equal(dynasty.users("/kept"), 2, "who has no token has nothing");
  },
);

dynastyTest(
  "a claim of an id that another subscriber of the client has got meanwhile is refused",
  async (dynasty) => {
    using client = await RawClient.connect(dynasty.socket);
    const { subscriberId } = await client.createSubscriber("c", { requestToken: 5n });
    assert.match(
      (await client.createSubscriber("c", { subscriberId, requestToken: 6n })).error,
      /Invalid user id/,
    );
    for (const requestToken of [5n, 0n]) {
      assert.equal((await client.createSubscriber("c", { subscriberId, requestToken })).error, "");
    }
  },
);

// Whose an orphan is

for (
  const [what, pidNamespace, granted] of [
    ["of another process is not given away", 7n, false],
    ["is given to who has its id, where process ids have changed with the pid namespace", 8n, true],
  ] as const
) {
  Deno.test(`an orphan ${what}`, () =>
    withBalancedFds(async () => {
      await using dynasty = await Dynasty.found(machine(1n, 7n));
      using client = await RawClient.connect(dynasty.socket);
      const { subscriberId } = await client.createSubscriber("c", { processId: BigInt(Deno.pid) });
      await dynasty.succeed(machine(1n, pidNamespace), async () => {
        await until("the shadow has it", () => dynasty.record("c")?.subscribers.size === 1);
        dynasty.record("c")!.subscribers.get(subscriberId)!.info.processId = 1n;
      });
      using next = await RawClient.connect(dynasty.socket);
      assert.equal((await next.createSubscriber("c", { subscriberId })).error === "", granted);
    }));
}

dynastyTest(
  "a server goes on as the publisher that the last one was, though that was another process",
  async (dynasty) => {
    await dynasty.succeed({ publishServerChannels: true });
    await dynasty.succeed({ publishServerChannels: true }, async () => {
      await until("the shadow has it", () => dynasty.record("/subspace/Statistics")?.publishers.size === 1);
      for (const { info } of dynasty.record("/subspace/Statistics")!.publishers.values()) {
        info.processId = DEAD_PID;
      }
    });
    assert.deepEqual([...channelOf(dynasty.server, "/subspace/Statistics").publishers.keys()], [0]);
  },
);
