/** What may happen to a simulated deployment, and how often. */

import type { Random } from "../chaos/random.ts";
import type { Wish } from "./handles.ts";
import type { Machine } from "./machine.ts";
import type { Process } from "./process.ts";
import type { World } from "./world.ts";

/** How likely it is beside the others, 0 where it cannot be done now, and how it is done. */
type Deed = readonly [weight: number, act: () => Promise<void> | void];

const CLIENTS_MAX = 4;
/** The longest that a slow process rests. */
const REST_MS_MAX = 20;

const PLAIN = ["/a", "/b", "/c"], VIRTUAL = ["/v", "/w"], MULTIPLEXERS = ["/m", "/n"];

/** All that can be done now. */
export function deeds(machine: Machine, world: World): Deed[] {
  return [
    ...wishes(machine, world),
    ...ofServers(world),
    ...ofShadows(machine, world),
    ...ofClients(machine, world),
  ];
}

function wishes(machine: Machine, { clients }: World): Deed[] {
  const { random } = machine;
  const able = clients.filter(({ process, idle }) => process.runs && idle);
  if (able.length === 0) return [];
  return [[60, () => {
    const client = random.pick(able), handles = [...client.handles];
    const choice = random.below(10);
    if (choice < 6 || handles.length === 0) {
      const wish = randomWish(random);
      return machine.run(
        client.process,
        `wants a ${wish.kind} on ${wish.channelName}`,
        () => client.create(wish),
      );
    }
    if (choice < 9) {
      const handle = random.pick(handles);
      return machine.run(
        client.process,
        `removes its ${handle.title} (id ${handle.id})`,
        () => client.remove(handle),
      );
    }
    const channel = random.pick(["", ...PLAIN]);
    return machine.run(client.process, `asks about ${channel || "everything"}`, () => client.ask(channel));
  }]];
}

function randomWish(random: Random): Wish {
  const virtual = random.below(3) === 0;
  return {
    kind: random.pick(["publisher", "subscriber"]),
    channelName: random.pick(virtual ? VIRTUAL : PLAIN),
    mux: virtual ? random.pick(MULTIPLEXERS) : "",
    reliable: random.below(2) === 0,
    notifyRetirement: !virtual && random.below(4) === 0,
    queue: !virtual && random.below(3) === 0,
  };
}

function ofServers(world: World): Deed[] {
  const { incarnation, server } = world;
  if (!world.serverLives) return [[25, () => world.startServer()]];
  const { process } = incarnation!;
  return [
    // A death in the middle of a start is worth more than others.
    [server === null ? 10 : 5, () => world.kill(process)],
    [server !== null && process.runs ? 2 : 0, () => world.stopServer()],
    ...stopAndContinue(process, 1),
  ];
}

function ofShadows(machine: Machine, world: World): Deed[] {
  if (world.shadows.length === 0) return [];
  const shadow = machine.random.pick(world.shadows), { process } = shadow;
  if (!shadow.alive) return [[10, () => shadow.start()]];
  const disturbing = (deed: Deed): Deed => [deed[0], () => {
    world.disturb(shadow);
    return deed[1]();
  }];
  return [
    [3, () => world.kill(process)],
    ...[
      ...stopAndContinue(process, 3),
      [
        process.runs ? 2 : 0,
        () => machine.run(process, "hangs up", () => shadow.inside!.disconnect()),
      ] as const,
    ].map(disturbing),
  ];
}

function ofClients(machine: Machine, world: World): Deed[] {
  const alive = world.clients.filter(({ process }) => process.alive);
  const come: Deed = [
    alive.length < CLIENTS_MAX ? 5 : 0,
    () => {
      world.clients = alive;
      return world.startClient(machine.chance(25));
    },
  ];
  if (alive.length === 0) return [come];
  const { process } = machine.random.pick(alive);
  return [come, [3, () => world.kill(process)], ...stopAndContinue(process, 2)];
}

/** Stops, and the slowness of those that are not stopped. */
function stopAndContinue(process: Process, weight: number): Deed[] {
  const { machine } = process;
  if (process.stopped) {
    return [[10, () => {
      machine.trace(`${process.name} goes on`);
      process.stopped = false;
    }]];
  }
  return [
    [weight, () => {
      machine.trace(`${process.name} is stopped`);
      process.stopped = true;
    }],
    [3, () => {
      process.restsUntilMs = machine.nowMs + 1 + machine.random.below(REST_MS_MAX);
      machine.trace(`${process.name} rests until ${process.restsUntilMs}`);
    }],
  ];
}
