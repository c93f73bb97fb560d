/** Simulated clients: ours, and one that notices nothing until its next request, as the reference's do. */

import { RequestError } from "../../client/errors.ts";
import { Control } from "../../client/control.ts";
import type { Answer, RequestInit } from "../../client/server_link.ts";
import { responseCodec, sendRequest } from "../../wire/client_link.ts";
import { Connection } from "../../wire/connection.ts";
import { closeAll } from "../../ffi/fd.ts";
import { type HandleEvents, SimulatedHandle, type Wish } from "./handles.ts";
import type { Machine } from "./machine.ts";
import type { Process } from "./process.ts";

/** Something that a client has asked for, and has no answer to yet. */
export interface Pending {
  readonly what: string;
  /** How long it has been everybody's fault but the server's. */
  sinceMs: number;
}

/** What both kinds have in common. */
export abstract class ClientActor {
  readonly process: Process;
  /** Acknowledged, and not removed. */
  readonly handles = new Set<SimulatedHandle>();
  readonly pending = new Set<Pending>();

  constructor(readonly machine: Machine, name: string, protected readonly events: HandleEvents) {
    this.process = machine.spawn(name);
  }

  /** Whether it knows that the server knows all that it has. */
  abstract get attached(): boolean;
  /** Whether it may be asked for more. */
  abstract get idle(): boolean;
  abstract start(): void;
  abstract create(wish: Wish): void;
  abstract remove(handle: SimulatedHandle): void;
  abstract ask(channelName: string): void;
  /** Memory and sockets that it holds beside its handles; null if that cannot be said. */
  abstract get numOtherFds(): number;

  protected track(what: string, work: Promise<unknown>): void {
    const pending = { what, sinceMs: this.machine.nowMs };
    this.pending.add(pending);
    const done = () => this.pending.delete(pending);
    work.then(done, (error) => {
      this.machine.trace(`${this.process.name}: ${what}: ${(error as Error).message}`);
      done();
    });
  }
}

/** The control plane of our client. */
export class OurClient extends ClientActor {
  readonly control: Control;
  #requestTokens = 0;

  constructor(machine: Machine, name: string, socket: string, events: HandleEvents) {
    super(machine, name, events);
    this.control = new Control({
      socket,
      name,
      token: BigInt(this.process.pid),
      requestTimeoutMs: 60_000,
      doorbell: true,
      onConnectionChange: () => {},
      system: machine.system(this.process),
    });
  }

  get attached(): boolean {
    return this.control.connected;
  }

  get idle(): boolean {
    return this.pending.size < 4;
  }

  start(): void {
    this.track("connect", this.control.start(600_000));
  }

  create(wish: Wish): void {
    const { pid } = this.process;
    const requestToken = BigInt(pid) << 32n | BigInt(++this.#requestTokens);
    const handle = new SimulatedHandle(wish, pid, requestToken, this.events);
    this.track(
      `create ${handle.title}`,
      this.control.create(handle).then(() => {
        if (!handle.failed) this.handles.add(handle);
      }),
    );
  }

  remove(handle: SimulatedHandle): void {
    this.handles.delete(handle);
    this.track(`remove ${handle.title}`, this.control.remove(handle));
    handle.release();
  }

  ask(channelName: string): void {
    const request = { request: { case: "getChannelInfo" as const, value: { channelName } } };
    this.track("ask", this.control.ask("ask", request, (answer) => closeAll(answer.fds)));
  }

  get numOtherFds(): number {
    return 2;
  }
}

/**
 * A client without a loop of its own: what it does, it does in its requests. Unlike the reference's it claims no ids from
 * servers that never gave them, after which that one uses memory that nobody else does.
 */
export class LateClient extends ClientActor {
  #connection: Connection | null = null;
  #attached = false;
  #session = 0n;
  /** Of the server that gave it its id. */
  readonly #sessions = new WeakMap<SimulatedHandle, bigint>();
  #scb: Answer["fds"] = [];

  constructor(machine: Machine, name: string, private readonly socket: string, events: HandleEvents) {
    super(machine, name, events);
  }

  get attached(): boolean {
    return this.#attached && this.#connection?.closed === false;
  }

  get idle(): boolean {
    return this.pending.size === 0;
  }

  start(): void {
    this.ask("");
  }

  create(wish: Wish): void {
    const handle = new SimulatedHandle(wish, this.process.pid, 0n, this.events);
    const work = this.#request(() => handle.createRequest(false)).then((answer) => {
      handle.adopt(answer);
      this.handles.add(handle);
      this.#sessions.set(handle, this.#session);
    });
    this.track(`create ${handle.title}`, work);
  }

  remove(handle: SimulatedHandle): void {
    // It is brought back first where the server is another by now.
    const work = this.#request(() => handle.removeRequest()).then(({ fds }) => {
      closeAll(fds);
      this.handles.delete(handle);
      handle.release();
    });
    this.track(`remove ${handle.title}`, work);
  }

  ask(channelName: string): void {
    const request = { request: { case: "getChannelInfo" as const, value: { channelName } } };
    this.track("ask", this.#request(() => request).then(({ fds }) => closeAll(fds)));
  }

  get numOtherFds(): number {
    return (this.#connection?.closed === false ? 1 : 0) + this.#scb.length;
  }

  /** Asks, on a new connection if the old one turns out to be broken. */
  async #request(request: () => RequestInit): Promise<Answer> {
    for (let again = 0; again < 2; again++) {
      if (this.#connection?.closed !== false) await this.#attach();
      try {
        return await this.#exchange(request());
      } catch (error) {
        if (!(error instanceof Disconnected)) throw error;
      }
    }
    throw new Disconnected();
  }

  async #exchange(request: RequestInit): Promise<Answer> {
    const connection = this.#connection!;
    sendRequest(connection, request);
    const answer = await connection.receive(responseCodec);
    if (answer === null) throw new Disconnected();
    return answer;
  }

  async #attach(): Promise<void> {
    this.#attached = false;
    const system = this.machine.system(this.process);
    this.#connection = new Connection(system.connect(this.socket), {}, system);
    const init = { request: { case: "init" as const, value: { clientName: "late" } } };
    const { message: { response }, fds } = await this.#exchange(init);
    closeAll(this.#scb);
    this.#scb = fds;
    this.#session = response.case === "init" ? response.value.sessionId : 0n;
    // All that is to stay first: what is new gets ids that nobody claims.
    const anew = [];
    for (const handle of this.handles) if (!await this.#bringBack(handle, true)) anew.push(handle);
    for (const handle of anew) await this.#bringBack(handle, false);
    this.#attached = true;
  }

  async #bringBack(handle: SimulatedHandle, keepId: boolean): Promise<boolean> {
    if (keepId && this.#sessions.get(handle) !== this.#session) return false;
    const answer = await this.#exchange(handle.createRequest(keepId));
    try {
      handle.adopt(answer);
      this.#sessions.set(handle, this.#session);
      return true;
    } catch (error) {
      if (error instanceof RequestError && !keepId) handle.fail(error);
      return false;
    }
  }
}

class Disconnected extends Error {}
