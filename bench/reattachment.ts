/** How long it takes from the start of a server that was killed until all that its clients had is known to it again. */

import type { Benchmark } from "./benchmark.ts";
import { afterKill } from "./kept_state.ts";

/** How many channels. */
const sizes = [100, 1000];
/** Processes, each with a publisher and a subscriber on every channel. */
const CLIENTS = 2;

export const reattachments: Benchmark[] = sizes.map((channels, i) => ({
  ...(i === 0
    ? {
      title: "From exec to all clients re-attached, server and shadow of one maker; the clients are ours:\n" +
        `${CLIENTS} processes with a publisher and a subscriber each on every channel`,
    }
    : {}),
  ...afterKill({
    name: `re-attach ${channels} channels`,
    goal: 1,
    clients: { count: CLIENTS, worker: "reattachment", channels },
    async isBack({ restart, clients }) {
      const seen = clients.map(({ lines }) => lines.length);
      await restart();
      const lines = await Promise.all(clients.map((client, i) => client.line(/^attached, .*$/, seen[i])));
      const anew = lines.find(([line]) => line !== "attached, 0 anew");
      if (anew !== undefined) throw new Error(`not everything was kept: ${anew[0]}`);
    },
  }),
}));
