/** What simulations have found, step by step: seeds lead elsewhere with every change, these do not. */

import assert from "node:assert/strict";
import { SocketFile } from "./files.ts";
import type { Wish } from "./handles.ts";
import { Machine } from "./machine.ts";
import { Run } from "./simulation.ts";
import { World, type WorldTraits } from "./world.ts";

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
  act: (run: Run, world: World, machine: Machine) => Promise<void>,
): void {
  Deno.test(name, async () => {
    for (let seed = 1; seed <= 10; seed++) {
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
        await act(run, world, machine);
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
