/** A simulated deployment: one server at a time, its shadows and its clients, and what has been promised so far. */

import type { ServerOptions } from "../../server/server.ts";
import { Server } from "../../server/server.ts";
import { SystemError } from "../../ffi/errno.ts";
import { Errno } from "../../ffi/errno.ts";
import type { System } from "../../ffi/system.ts";
import { type ClientActor, LateClient, OurClient } from "./clients.ts";
import { SocketFile } from "./files.ts";
import type { HandleEvents, SimulatedHandle } from "./handles.ts";
import type { Machine } from "./machine.ts";
import type { Process } from "./process.ts";
import { ShadowActor } from "./shadows.ts";

const SOCKET = "server";
/** Long enough for slow shadows, as what is promised is promised of those that answer. */
const DUMP_MS = 20_000;

/** System calls after which a process is killed, at the most. */
const FUSE_MAX = 30;

/** What a world is made of. */
export interface WorldTraits {
  /** For each shadow, whether it speaks only the old protocol. */
  readonly referenceShadows: readonly boolean[];
  /** For each client, whether it comes back only at its next request. */
  readonly lateClients: readonly boolean[];
  /** Whether servers speak only the old protocol to shadows. */
  readonly oldServer: boolean;
  /** Changes that a shadow may miss before it gets everything again. */
  readonly journalChangesMax: number;
}

/** One server process. */
interface Incarnation {
  readonly number: number;
  readonly process: Process;
  readonly startedNs: bigint;
  /** How long its start takes is counted from here. */
  startsSinceMs: number;
  /** null until it serves. */
  server: Server | null;
  /** It has been told to stop. */
  stopping: boolean;
  /** The start has failed. */
  failure: Error | null;
}

/** A copy of all that clients were told, in the life of a shadow. */
interface Holder {
  readonly shadow: ShadowActor;
  readonly life: number;
}

export class World implements HandleEvents {
  readonly shadows: ShadowActor[];
  clients: ClientActor[] = [];
  incarnation: Incarnation | null = null;
  #incarnations = 0;
  /** Of servers, by process id. */
  readonly #numbers = new Map<number, number>();
  #clientsMade = 0;
  /** The first server of which everything that it acknowledged must still be there. */
  safeFrom = 1;
  /** Shadows that have all that was acknowledged: as of now while a server serves, and else as of its death. */
  holders: Holder[] = [];
  /** Users that a client lost although it was told that it had them. Looked at by the oracle. */
  recreated = 0;
  acknowledged = 0;
  kills = 0;

  constructor(readonly machine: Machine, readonly traits: WorldTraits) {
    this.shadows = traits.referenceShadows.map((reference, i) =>
      new ShadowActor(machine, `shadow${i}`, reference)
    );
    machine.onDeath = (process) => this.#died(process);
  }

  /** The server, if it serves. */
  get server(): Server | null {
    return this.serverLives && !this.incarnation!.stopping ? this.incarnation!.server : null;
  }

  get serverLives(): boolean {
    return this.incarnation?.process.alive === true;
  }

  /** Kills a process now, or in the middle of what it does next. */
  kill(process: Process): void {
    this.kills++;
    if (process.runs && this.machine.chance(50)) process.fuse = this.machine.random.below(FUSE_MAX);
    else process.kill();
  }

  async startServer(): Promise<void> {
    const { machine } = this, number = ++this.#incarnations;
    const process = machine.spawn(`${SOCKET}#${number}`);
    this.#numbers.set(process.pid, number);
    const system = this.traits.oldServer
      ? withoutReplication(machine.system(process))
      : machine.system(process);
    const startedNs = system.monotonicNs();
    const incarnation: Incarnation = {
      number,
      process,
      startedNs,
      startsSinceMs: machine.nowMs,
      server: null,
      stopping: false,
      failure: null,
    };
    this.incarnation = incarnation;
    this.holders = this.holders.filter(({ shadow }) => shadow.alive && !shadow.process.stopped);
    if (!this.#isFreshestKnown()) this.holders = [];
    await machine.run(process, "starts", () => {
      Server.start(this.#options(process, system)).then((server) => {
        if (!process.alive) return;
        incarnation.server = server;
        if (this.holders.length === 0) this.safeFrom = number;
        machine.trace(`${process.name} serves; what ${this.safeFrom} and later acknowledged is safe`);
      }, (error) => {
        if (process.alive) incarnation.failure = error as Error;
      });
    });
  }

  #options(process: Process, system: System): ServerOptions {
    const [primary, secondary, ...more] = this.shadows.map(({ socket }) => socket);
    return {
      socket: SOCKET,
      ...(primary === undefined ? {} : { shadowSocket: primary }),
      ...(secondary === undefined ? {} : { secondaryShadowSocket: secondary }),
      recovery: { more, journalChangesMax: this.traits.journalChangesMax },
      publishServerChannels: false,
      shadowPatience: { dumpMs: DUMP_MS },
      host: this.machine.host(process),
      system,
    };
  }

  /** Has the server end in order: the shadows keep its state. */
  async stopServer(): Promise<void> {
    const { process, server } = this.incarnation!;
    this.refreshHolders();
    this.incarnation!.stopping = true;
    await this.machine.run(process, "is told to stop", () => {
      server!.stop().then(() => process.kill());
    });
  }

  async startClient(late: boolean): Promise<void> {
    const name = `client#${++this.#clientsMade}`;
    const client = late
      ? new LateClient(this.machine, name, SOCKET, this)
      : new OurClient(this.machine, name, SOCKET, this);
    this.clients.push(client);
    await this.machine.run(client.process, "starts", () => client.start());
  }

  /** Whether a client knows that the server that lives now knows all that it has. */
  isServed({ attached, process }: ClientActor): boolean {
    const server = this.incarnation?.process.pid;
    return attached &&
      [...process.fds].some(({ file }) =>
        file instanceof SocketFile && file.peerPid === server && file.peer !== null
      );
  }

  /** Shadows that would have everything even if the server were killed now. */
  refreshHolders(): void {
    if (this.server !== null) this.holders = this.#findHolders();
  }

  #findHolders(): Holder[] {
    const { server, startedNs, process } = this.incarnation!;
    return this.shadows.filter((shadow, i) => {
      const status = server!.shadows[i];
      if (!shadow.alive || !status.connected || status.lag > 0) return false;
      // A server that does not say when it has sent everything is believed when the shadow believes it.
      const { position, filling } = shadow.inside!;
      const settled = position === null || (!filling && position.generation >= startedNs);
      return (!this.traits.oldServer || settled) && this.#isHeard(process, shadow);
    }).map((shadow) => ({ shadow, life: shadow.life }));
  }

  /** Whether all that a server has to say to a shadow is in its socket. */
  #isHeard(server: Process, { socket, process }: ShadowActor): boolean {
    for (const { file } of server.fds) {
      if (!(file instanceof SocketFile) || file.peer === null || !file.peer.owner.startsWith(socket)) {
        continue;
      }
      if (!process.alive || file.blocked || file.blockedIn === this.machine.step) return false;
      // What an old server has sent counts when the shadow has taken it for everything.
      return !this.traits.oldServer || file.peer.inboxBytes === 0;
    }
    return false;
  }

  /** Whether a server can tell that a holder is fresher than what others have: nobody knows that by the old protocol. */
  #isFreshestKnown(): boolean {
    if (!this.traits.oldServer && this.holders.some(({ shadow }) => !shadow.reference)) return true;
    return this.shadows.every((shadow) =>
      !shadow.alive || this.holders.some((holder) => holder.shadow === shadow) || !this.#wasTold(shadow)
    );
  }

  /** Whether a shadow has something to recover from, or will have when it has read what servers have sent it. */
  #wasTold({ inside, process }: ShadowActor): boolean {
    return inside!.state.sessionId !== 0n ||
      [...process.fds].some(({ file }) =>
        file instanceof SocketFile && file.inboxBytes > 0 && this.#numbers.has(file.peerPid)
      );
  }

  /** A shadow cannot be relied on while a server looks for it. */
  disturb(shadow: ShadowActor): void {
    if (this.server === null) this.#withoutHolder(({ shadow: holder }) => holder === shadow);
  }

  #withoutHolder(lost: (holder: Holder) => boolean): void {
    this.holders = this.holders.filter((holder) => !lost(holder));
    if (this.server === null && !this.#isFreshestKnown()) this.holders = [];
  }

  #died(process: Process): void {
    const { incarnation } = this;
    if (process === incarnation?.process) {
      if (incarnation.server === null) {
        // Its half-told state is all that a shadow of the reference's has now.
        this.holders = this.holders.filter(({ shadow }) => !shadow.reference);
      } else if (!incarnation.stopping) {
        const now = this.#findHolders();
        this.holders = this.holders.filter(({ shadow }) => now.some((holder) => holder.shadow === shadow));
      }
    }
    this.#withoutHolder(({ shadow }) => shadow.process === process);
  }

  adopted(handle: SimulatedHandle, kept: boolean | null): void {
    if (kept === null) this.acknowledged++;
    if (kept === false && !handle.removed) {
      this.recreated++;
      this.#lost(handle, "started anew");
    }
    handle.incarnation = this.#answering(handle);
  }

  /** Number of the server whose answer a client has just got: it may be dead by now. */
  #answering({ pid }: SimulatedHandle): number {
    const client = this.clients.find(({ process }) => process.pid === pid)!;
    for (const { file } of client.process.fds) {
      if (file instanceof SocketFile) return this.#numbers.get(file.peerPid)!;
    }
    throw new Error(`${client.process.name} has an answer and no connection`);
  }

  failed(handle: SimulatedHandle, reason: Error): void {
    for (const { handles } of this.clients) handles.delete(handle);
    // A removal that was not answered may have been done.
    if (!handle.removed) this.#lost(handle, reason.message);
  }

  #lost(handle: SimulatedHandle, how: string): void {
    if (handle.incarnation < this.safeFrom) return;
    this.machine.violated(
      `lost ${handle.title} (id ${handle.id}), acknowledged by server#${handle.incarnation}: ${how}`,
    );
  }
}

/** A system as a server sees it that does not know of our shadows' own doors. */
function withoutReplication(system: System): System {
  return {
    ...system,
    connect: (name) => {
      if (name.endsWith(".replication")) throw new SystemError(`connect to ${name}`, Errno.ECONNREFUSED);
      return system.connect(name);
    },
  };
}
