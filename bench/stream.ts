/** Reliable streams from one process to another, one message after the other, 32 slots. */

import { channelInfo, until } from "../tests/deployment.ts";
import { cppFolder, Program } from "../tests/program.ts";
import type { Benchmark, Figures, Side } from "./benchmark.ts";
import { type DataSubject, measureBoth, withAndWithout } from "./doorbell.ts";
import { figure, finished, type Run, startPeer, startWorker } from "./run.ts";

const SLOTS = 32;

interface Stream {
  readonly subject: DataSubject;
  readonly bytes: number;
  /** Whether the payload is written and read, every byte of it (memset, and a sum by SIMD instructions); or its first four. */
  readonly payload: "whole" | "touched";
  /** How ours wait. C++ blocks. */
  readonly way: "blocking" | "async";
  readonly count: number;
}

function stream(
  size: string,
  bytes: number,
  payload: Stream["payload"],
  count: number,
  goals: readonly [without?: number, doorbell?: number] = [],
  way: Stream["way"] = "blocking",
): Stream {
  const how = way === "async" ? ", for await" : payload === "whole" ? ", written and read" : "";
  const name = `stream ${size}${how}`;
  const [goal, doorbellGoal] = goals;
  const subject = {
    name,
    ...(goal === undefined ? {} : { goal }),
    ...(doorbellGoal === undefined ? {} : { doorbellGoal }),
  };
  return { subject, bytes, payload, way, count };
}

/** Goals are of time: 1.8 times the throughput is 0.556 of the time. */
const all = [
  stream("64 B", 64, "touched", 400_000, [1 / 1.8, 1 / 4]),
  stream("64 B", 64, "touched", 200_000, undefined, "async"),
  stream("4 KiB", 4096, "touched", 400_000),
  stream("4 KiB", 4096, "whole", 200_000),
  stream("64 KiB", 65536, "touched", 400_000),
  stream("64 KiB", 65536, "whole", 60_000, [1 / 1.5, 1 / 1.5]),
  stream("1 MiB", 1048576, "touched", 400_000),
  stream("1 MiB", 1048576, "whole", 4_000, [1 / 1.1, 1 / 1.1]),
];

export const streams: Benchmark[] = all.map((stream, i) => ({
  ...(i === 0 ? { title: `Reliable stream between two processes, ${SLOTS} slots; per message` } : {}),
  subjects: withAndWithout([stream.subject]),
  rounds: 5,
  prepare: (run) => prepare(stream, run),
}));

async function prepare(stream: Stream, run: Run) {
  const { socket } = await run.server();
  const count = Math.ceil(stream.count / run.scaled(1, 4));
  const perf = run.lacks("peer_bench") !== null && stream.payload === "touched";
  const { name } = stream.subject;
  let rounds = 0;
  return {
    withoutPeer: perf ? run.lacks("perf_subspace_pub") : run.lacks("peer_bench"),
    measure(side: Side): Promise<Figures> {
      return measureBoth(side, async (doorbell) => {
        const prefix = `stream_${side}_${stream.bytes}_${stream.payload}_${stream.way}_${rounds++}`;
        if (side === "ours") return { [name]: await measureOurs(stream, socket, prefix, count, doorbell) };
        return {
          [name]: perf
            ? await measurePerf(stream, socket, count)
            : await measurePeer(stream, socket, prefix, count),
        };
      });
    },
    async [Symbol.asyncDispose]() {},
  };
}

async function measureOurs(
  stream: Stream,
  socket: string,
  prefix: string,
  count: number,
  doorbell: boolean,
): Promise<number> {
  const args = [socket, prefix, stream.bytes, SLOTS, count, stream.payload, stream.way];
  await using publisher = startWorker("stream", ["publish", ...args], { doorbell });
  const lines = await finished(startWorker("stream", ["subscribe", ...args], { doorbell }));
  await finished(publisher);
  return figure(lines, "ns_per_message");
}

async function measurePeer(stream: Stream, socket: string, prefix: string, count: number): Promise<number> {
  const args = [`--socket=${socket}`, `--prefix=${prefix}`, `--sizes=${stream.bytes}`, `--count=${count}`];
  args.push(
    `--slots=${SLOTS}`,
    `--bytes=${stream.bytes * count}`,
    `--fill=${stream.payload === "whole" ? 1 : 0}`,
  );
  await using publisher = startPeer(["stream-pub", ...args]);
  const lines = await finished(startPeer(["stream-sub", ...args]));
  await finished(publisher);
  return 1e9 / figure(lines, `stream_${stream.bytes}`);
}

/**
 * The reference's own programs. They leave the time out that they wait, so they are timed from outside: from the
 * publisher's start to the subscriber's end, less what that takes with a single message.
 */
async function measurePerf(stream: Stream, socket: string, count: number): Promise<number> {
  const time = async (messages: number) => {
    const args = [`--socket=${socket}`, `--num_msgs=${messages}`, `--slot_size=${stream.bytes}`];
    await using subscriber = Program.start(`${cppFolder}/perf_subspace_sub`, args);
    await until("there is a subscriber", async () => (await channelInfo(socket, "test"))?.numSubs === 1);
    const start = performance.now();
    await using publisher = Program.start(`${cppFolder}/perf_subspace_pub`, [
      ...args,
      `--num_slots=${SLOTS}`,
    ]);
    await finished(subscriber);
    const end = performance.now();
    await finished(publisher);
    await until("the channel is gone", async () => await channelInfo(socket, "test") === undefined);
    return (end - start) * 1e6;
  };
  const empty = await time(1);
  return (await time(count) - empty) / count;
}
