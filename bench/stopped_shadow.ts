/** What a shadow that is stopped costs clients: creating channels beside it, and where there is none. */

import { startServer, startShadow, until } from "../tests/deployment.ts";
import { uniqueSocket } from "../tests/program.ts";
import { RawClient } from "../tests/raw_client.ts";
import type { Benchmark, Figures, Side } from "./benchmark.ts";
import type { Run } from "./run.ts";
import { nowNs } from "./workers/stopwatch.ts";

const CHANNELS = 1000;
const name = `p99 of creating ${CHANNELS} channels`;

export const stoppedShadow: Benchmark = {
  title:
    "A shadow that is stopped (SIGSTOP), beside none; a publisher on a new channel each, one after the other",
  subjects: [{ name, goal: 1.5 }],
  rounds: 9,
  peer: "no shadow",
  async prepare(run: Run) {
    const sockets = { ours: uniqueSocket("with"), peer: uniqueSocket("without") };
    const shadowSocket = uniqueSocket("stopped");
    const shadow = await startShadow("ours", shadowSocket);
    const servers = [
      await startServer("ours", sockets.ours, [shadowSocket]),
      await startServer("ours", sockets.peer),
    ];
    for (const socket of Object.values(sockets)) await run.noteSession(socket);
    shadow.signal("SIGSTOP");
    return {
      withoutPeer: null,
      async measure(side: Side): Promise<Figures> {
        return { [name]: await p99(sockets[side]) };
      },
      async [Symbol.asyncDispose]() {
        await shadow.kill();
        for (const server of servers) await server.kill("SIGTERM");
      },
    };
  },
};

async function p99(socket: string): Promise<number> {
  const client = new RawClient(socket), times: number[] = [];
  for (let i = 0; i < CHANNELS; i++) {
    const start = nowNs();
    await client.publisher(`/bench/${i}`);
    times.push(nowNs() - start);
  }
  client[Symbol.dispose]();
  using next = new RawClient(socket);
  await until("the channels are gone", async () => {
    const response = await next.ask({ case: "getChannelInfo", value: { channelName: "" } });
    return response.case === "getChannelInfo" && response.value.channels.length < 10;
  });
  return times.sort((a, b) => a - b)[Math.floor(0.99 * CHANNELS)];
}
