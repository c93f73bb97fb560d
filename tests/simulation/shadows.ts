/** Simulated shadows: ours, and one that speaks only the old protocol. */

import { getLogger } from "@logtape/logtape";
import type { Fd } from "../../ffi/fd.ts";
import { Ready, type Watch } from "../../ffi/reactor.ts";
import type { System } from "../../ffi/system.ts";
import { Mirror } from "../../shadow/mirror.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { Connection } from "../../wire/connection.ts";
import type { Position } from "../../wire/position.ts";
import { tryReceiveEvent } from "../../wire/shadow_link.ts";
import { sendDump, type StateDump } from "../../wire/state_dump.ts";
import type { Machine } from "./machine.ts";
import type { Process } from "./process.ts";

const READABLE_ONCE = Ready.readable | Ready.once;

/** What simulations need to see of a shadow. */
interface Inside {
  readonly state: StateDump;
  readonly previous: StateDump | null;
  /** null where it does not say. */
  readonly position: Position | null;
  /** Whether the state is that of a server before, as the present one is still sending. */
  readonly filling: boolean;
  readonly connections: number;
  readonly doors: number;
  /** Hangs up on everybody. */
  disconnect(): void;
}

/**
 * A shadow as the reference has it: one connection at a time, and one copy, which each new server replaces from its
 * first word on.
 */
class ReferenceShadow implements Inside {
  readonly #mirror = new Mirror();
  readonly #watch: Watch;
  #connection: Connection | null = null;
  readonly previous = null;
  readonly position = null;
  readonly filling = false;
  readonly doors = 1;

  constructor(private readonly system: System, socket: string) {
    const listener = system.listen(socket);
    this.#watch = system.watch(listener, READABLE_ONCE, () => {
      const next = system.accept(listener);
      if (next !== null) this.#serve(next);
    });
  }

  get state(): StateDump {
    return this.#mirror.state;
  }

  get connections(): number {
    return this.#connection === null ? 0 : 1;
  }

  disconnect(): void {
    this.#connection?.close();
  }

  #serve(socket: Fd): void {
    const connection = this.#connection = new Connection(socket, {}, this.system);
    connection.onReadable = () => this.#read(connection);
    const snapshot = this.#mirror.snapshot();
    sendDump(connection, snapshot, 30_000).finally(() => snapshot[Symbol.dispose]());
  }

  #read(connection: Connection): void {
    for (let event = tryReceiveEvent(connection); event !== null; event = tryReceiveEvent(connection)) {
      try {
        this.#mirror.apply(event.message, event.fds);
      } catch (error) {
        getLogger("simulation").debug("{error}", { error });
      }
    }
    if (!connection.closed || this.#connection !== connection) return;
    this.#connection = null;
    this.#watch.rearm(READABLE_ONCE);
  }
}

/** A shadow that is killed and started again. */
export class ShadowActor {
  process: Process;
  inside: Inside | null = null;
  /** Of the last complete copy of this life; null for none. */
  complete: Position | null = null;
  #lives = 0;

  constructor(readonly machine: Machine, readonly socket: string, readonly reference: boolean) {
    this.process = machine.spawn(socket);
  }

  get alive(): boolean {
    return this.process.alive;
  }

  /** Starts it, with nothing in it. */
  start(): Promise<void> {
    if (this.#lives++ > 0) this.process = this.machine.spawn(`${this.socket}#${this.#lives}`);
    this.complete = null;
    const { process, socket } = this, system = this.machine.system(process);
    return this.machine.run(process, "starts", () => {
      this.inside = this.reference ? new ReferenceShadow(system, socket) : ours(system, socket);
    });
  }

  /** Number of this life: a shadow that was killed has lost everything. */
  get life(): number {
    return this.#lives;
  }
}

function ours(system: System, socket: string): Inside {
  return Object.assign(Shadow.start({ socket, system }), { doors: 4 });
}
