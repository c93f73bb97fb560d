/** What a model runs on: one memory, and processes that each have the traced core on it. */

import type { CoreExports } from "../../shm/core_exports.ts";
import { coreWasm } from "../../shm/core_wasm.ts";
import { type ChannelImage, channelImage, ModelChannel, SHARED } from "./model_channel.ts";
import { compileTracedCore, instantiate, type TracedCore } from "./traced_core.ts";

interface Process {
  step: () => Promise<void>;
  readonly core: TracedCore;
}

/** Made once for all runs: the traced core takes a second to compile. */
export class Machine {
  readonly #memory = new WebAssembly.Memory({ initial: 8, maximum: 65536 });
  readonly #images = new Map<number, ChannelImage>();
  readonly #plain: CoreExports;
  readonly #processes: Process[] = [];
  #used = 0;

  private constructor(private readonly module: WebAssembly.Module) {
    const env = { memory: this.#memory };
    const plain = new WebAssembly.Instance(new WebAssembly.Module(coreWasm), { env });
    this.#plain = plain.exports as unknown as CoreExports;
  }

  /** @param spoil Changes a source of the core, to see whether the fault is found. */
  static async create(spoil?: (name: string, source: string) => string): Promise<Machine> {
    return new Machine(await compileTracedCore(SHARED, spoil));
  }

  /** Begins a run: the memory has a new channel. User ids are below `numUsers`. */
  begin(numSlots: number, numUsers: number): ModelChannel {
    let image = this.#images.get(numSlots);
    if (image === undefined) this.#images.set(numSlots, image = channelImage(numSlots));
    this.#used = 0;
    return new ModelChannel(this.#memory, this.#plain, image, numSlots, numUsers);
  }

  /** The core of one more process; instances are used again, as making one costs more than a run. */
  start(step: () => Promise<void>): TracedCore {
    if (this.#used === this.#processes.length) {
      const made: Process = { step, core: instantiate(this.module, this.#memory, () => made.step()) };
      this.#processes.push(made);
    }
    const process = this.#processes[this.#used++];
    process.step = step;
    return process.core;
  }
}
