/** How long a server that was killed takes from its start to having its state back from a shadow. */

import type { Benchmark } from "./benchmark.ts";
import { afterKill } from "./kept_state.ts";

/** How many channels, each with a publisher and a subscriber. */
const sizes = [1, 100, 1000];

export const recoveries: Benchmark[] = sizes.map((channels, i) => ({
  ...(i === 0 ? { title: "From exec to the log line 'Recovered', server and shadow of one maker" } : {}),
  ...afterKill({
    name: `recover ${channels} ${channels === 1 ? "channel" : "channels"}`,
    clients: { count: 1, worker: "recovery", channels, stopped: true },
    async isBack({ restart }) {
      const server = await restart();
      await server.line(/Recovered \d+ channels from primary shadow/);
    },
  }),
}));
