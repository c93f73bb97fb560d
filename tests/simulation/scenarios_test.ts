/** What simulations have found, step by step: seeds lead elsewhere with every change, these do not. */

import assert from "node:assert/strict";
import { SocketFile } from "./files.ts";
import type { Wish } from "./handles.ts";
import { Machine } from "./machine.ts";
import { Run } from "./simulation.ts";
import { World, type WorldTraits } from "./world.ts";

const SEEDS = 12;

const TRAITS: WorldTraits = {
  referenceShadows: [false, false],
  lateClients: [],
  oldServer: false,
  journalChangesMax: 1000,
};

const WISH: Wish = {
  kind: "publisher",
  channelName: "/a",
  mux: "",
  reliable: false,
  notifyRetirement: false,
  queue: false,
};

/** Runs steps whose order among processes is drawn from several seeds. */
function scenario(
  name: string,
  traits: Partial<WorldTraits>,
  socketBytes: number,
  act: (run: Run, world: World, seed: number) => Promise<void>,
): void {
  Deno.test(name, async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const machine = new Machine(
        seed,
        () => ({ socketBytes, shortTransfers: 0, watchesProcesses: true }),
        false,
      );
      const world = new World(machine, { ...TRAITS, ...traits }), run = new Run(machine, world);
      try {
        for (const shadow of world.shadows) await shadow.start();
        await world.startServer();
        await run.until("the server serves", () => world.server !== null);
        await act(run, world, seed);
        await run.rest();
        assert.equal(machine.violation, null, `seed ${seed}`);
      } finally {
        machine.end();
      }
    }
  });
}

scenario(
  "nothing is promised where a shadow that was told half by the old protocol may pass for a whole one",
  { oldServer: true },
  300,
  async (run, world) => {
    await world.startClient(false);
    const [client] = world.clients, [first] = world.shadows;
    await run.until("the client is attached", () => client.attached);
    // More than fits into a socket.
    for (let i = 0; i < 12; i++) client.create({ ...WISH, channelName: `/${i}` });
    await run.until("it has all publishers", () => client.handles.size === 12);
    await run.until("both shadows have", () => world.holders.length === 2);
    first.process.kill();
    await first.start();
    const isHalfTold = () =>
      [...first.process.fds].some(({ file }) => file instanceof SocketFile && file.inboxBytes > 200);
    await run.until("its socket is full", isHalfTold);
    first.process.stopped = true;
    world.incarnation!.process.kill();
    await world.startServer();
    first.process.stopped = false;
    await run.until("the next server serves", () => world.server !== null);
    await run.until("the client is back", () => world.isServed(client));
    assert(world.recreated > 0, "the scenario does not meet what it is about");
  },
);

for (const close of [false, true]) {
  scenario(
    `a renewal that a server granted before it died is found again, ${
      close ? "and removed" : "not made twice"
    }`,
    { referenceShadows: [false] },
    20_000,
    async (run, world, seed) => {
      await world.startClient(false);
      const [client] = world.clients, [shadow] = world.shadows;
      client.create(WISH);
      await run.until("it has a publisher", () => client.handles.size === 1);
      // The next server knows nothing of it.
      world.incarnation!.process.kill();
      shadow.process.kill();
      await shadow.start();
      await world.startServer();
      await run.until("the next server serves", () => world.server !== null);
      const second = world.incarnation!.process;
      const isAsked = () =>
        [...second.fds].some(({ file }) => file instanceof SocketFile && file.inboxBytes > 35);
      await run.until("it is asked for the publisher", isAsked);
      // At each of the calls in which it makes one, tells the shadow, and answers.
      second.fuse = seed;
      await run.until("it has done so, or is dead", () => !second.alive || !isAsked());
      second.kill();
      await run.until("the client knows", () => !client.attached);
      if (close) { for (const handle of client.handles) client.remove(handle); }
    },
  );
}

scenario(
  "what a server granted and never said is removed with it when another refused it meanwhile",
  { referenceShadows: [false] },
  20_000,
  async (run, world, seed) => {
    for (let i = 0; i < 2; i++) await world.startClient(false);
    const [client, other] = world.clients, [shadow] = world.shadows;
    await run.until("the clients are attached", () => client.attached && other.attached);
    const first = world.incarnation!.process;
    const isAsked = () =>
      [...first.fds].some(({ file }) => file instanceof SocketFile && file.inboxBytes > 0);
    const wish = { ...WISH, kind: "subscriber" as const, channelName: "/v", mux: "/n" };
    client.create(wish);
    await run.until("it is asked for a subscriber", isAsked);
    // At each of the calls in which it makes one, tells the shadow, and answers.
    first.fuse = seed;
    await run.until("it has done so, or is dead", () => !first.alive || !isAsked());
    first.kill();
    // The next one cannot know of it, and has another channel of that name first.
    shadow.process.stopped = true;
    client.process.stopped = true;
    other.create({ ...wish, mux: "/m" });
    await world.startServer();
    await run.until("the other client has it", () => other.handles.size === 1);
    client.process.stopped = false;
    await run.until("it has its answer", () => client.pending.size === 0);
    world.incarnation!.process.kill();
    shadow.process.stopped = false;
  },
);

scenario(
  "a subscriber that is removed while it is claimed takes no other one with it that has its id by then",
  { referenceShadows: [false] },
  20_000,
  async (run, world) => {
    const { machine } = run;
    await world.startClient(false);
    const [client] = world.clients, [shadow] = world.shadows;
    client.create(WISH);
    await run.until(
      "the shadow knows a publisher",
      () => world.holders.length === 1 && client.handles.size === 1,
    );
    await machine.run(shadow.process, "hangs up", () => shadow.inside!.disconnect());
    const wish = { ...WISH, kind: "subscriber" as const, channelName: "/b" };
    client.create(wish);
    await run.until("the client has what the shadow is not told of", () => client.handles.size === 2);
    const [, claimed] = client.handles;
    world.incarnation!.process.kill();
    await world.startServer();
    await run.until("the next server serves", () => world.server !== null);
    const second = world.incarnation!.process;
    const isClaimed = () =>
      [...second.fds].some(({ file }) => file instanceof SocketFile && file.inboxBytes > 60);
    await run.until("it is asked for both", isClaimed);
    await machine.run(client.process, "wants another one and removes the one", () => {
      client.create(wish);
      client.remove(claimed);
    });
    await run.until("it has the other one", () => client.handles.size === 2);
  },
);
