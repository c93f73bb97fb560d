/** Running a model check on all threads that the machine has. */

/** What a thread is to do. */
export interface Share {
  readonly model: "core" | "holding";
  readonly first: number;
  readonly count: number;
}

/** What it says in the end. */
export interface Outcome {
  readonly failure: string | null;
  readonly steps: number;
  readonly kills: number;
  /** How often each thing was done, where the model counts that. */
  readonly done: Record<string, number>;
}

const THREADS_MAX = 4;

/** Runs a number of seeds, divided among threads. @throws {Error} If something does not hold; it names the seed. */
export async function runInThreads({ model, first, count }: Share): Promise<Outcome> {
  const threads = Math.min(navigator.hardwareConcurrency, THREADS_MAX), each = Math.ceil(count / threads);
  const outcomes = await Promise.all(
    Array.from(
      { length: threads },
      (_, i) => run({ model, first: first + i * each, count: Math.min(each, count - i * each) }),
    ),
  );
  const sum = { failure: null, steps: 0, kills: 0, done: {} as Record<string, number> };
  for (const { failure, steps, kills, done } of outcomes) {
    if (failure !== null) throw new Error(failure);
    sum.steps += steps;
    sum.kills += kills;
    for (const [what, times] of Object.entries(done)) sum.done[what] = (sum.done[what] ?? 0) + times;
  }
  return sum;
}

async function run(share: Share): Promise<Outcome> {
  const worker = new Worker(new URL("thread.ts", import.meta.url), {
    type: "module",
    name: JSON.stringify(share),
  });
  try {
    const outcome = new Promise<Outcome>((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => reject(new Error(event.message));
    });
    return await outcome;
  } finally {
    worker.terminate();
  }
}
