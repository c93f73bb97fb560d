/**
 * The client's end of the link to its server: requests in order, answers as they come, and the server's return.
 *
 * Invariants: nothing here waits for the server, except promises; the numbers of requests under way and waiting are
 * bounded; every request is settled exactly once. All progress is made by `pump`, which both the event loop and
 * callers that never yield to it may call.
 */

import { closeAll, type Fd } from "../ffi/fd.ts";
import type { System } from "../ffi/system.ts";
import type { Response } from "../proto/subspace_pb.ts";
import { responseCodec, sendRequest } from "../wire/client_link.ts";
import { Connection, CutOffError, type Incoming, ProtocolError } from "../wire/connection.ts";
import { ClosedError, ConnectionError } from "./errors.ts";

/** A request to be sent. */
export type RequestInit = Parameters<typeof sendRequest>[1];

/** An answer and its fds, which whoever gets it owns. */
export type Answer = Incoming<Response>;

/** A request and what becomes of it. */
export interface Exchange {
  readonly request: RequestInit;
  /** Called once, with the answer or with the reason why there is none. Must not throw. */
  readonly settle: (outcome: Answer | Error) => void;
  /** Whether it is sent again when the server went away before it answered. */
  readonly repeat: boolean;
  /** Called when it is its turn. Returns an fd to go with it, which is closed then, or null. If it throws, nothing is sent. */
  readonly attach?: () => Fd | null;
  /** Whether there is no answer: `settle` is only called where it could not be sent. Default: false. */
  readonly oneWay?: boolean;
}

/** The process that a server is. */
export interface ServerProcess {
  /** Of the one that listened; 0 where it cannot be seen from here. */
  readonly pid: number;
  /** When that started; null where there is none any more, 0 where that is unknown. */
  readonly start: bigint | null;
}

/** What the server said when it was connected to. */
export interface Greeting {
  readonly answer: Answer;
  readonly server: ServerProcess;
}

/** Who is told what becomes of the link. */
export interface LinkEvents {
  /** The server has answered `Init`. Returns what is to be sent before all else. Throws to have the link closed. */
  greeted(greeting: Greeting): Exchange[];
  /** The connection is gone, or could not be made; another will be tried for. */
  lost(reason: Error): void;
}

/** Requests sent and not answered, at the most: enough to keep a server busy, too few to fill a socket with answers. */
const IN_FLIGHT_MAX = 32;
/** Requests that wait to be sent, at the most. */
const WAITING_MAX = 65536;
const RETRY_MS_MIN = 1;
/** Trying costs some 10 µs, and whoever waits for a server wants it at once. */
const RETRY_MS_MAX = 50;
/** Slow: a client is late by no more than a tenth of the time that the server was away. */
const RETRY_GROWTH = 1.1;

/** Servers that may be killed inside an answer, one after the other, before what they send counts as nonsense. */
const CUT_OFF_MAX = 3;

/** As whom a client makes itself known. */
export interface ClientIdentity {
  readonly name: string;
  /** A number that no other client has. */
  readonly token: bigint;
}

/** A link to a server, made again whenever it breaks. */
export class ServerLink {
  readonly #socketName: string;
  readonly #client: ClientIdentity;
  readonly #system: System;
  readonly #events: LinkEvents;
  #connection: Connection | null = null;
  #greetedAt = -1;
  #failure: Error | null = null;
  readonly #inFlight: Exchange[] = [];
  #waiting: Exchange[] = [];
  #retryMs = RETRY_MS_MIN;
  #retryAt = 0;
  #cancelRetry: () => void = () => {};
  /** Connections in a row that ended inside an answer. */
  #cutOff = 0;
  #pumping = false;
  #closed = false;

  constructor(socketName: string, client: ClientIdentity, system: System, events: LinkEvents) {
    this.#socketName = socketName;
    this.#client = client;
    this.#system = system;
    this.#events = events;
  }

  /** Whether the server has answered on the present connection. */
  get greeted(): boolean {
    return this.#greetedAt >= 0;
  }

  /** Whether `pump` has something to wait for: an answer, or the server. */
  get busy(): boolean {
    return this.#inFlight.length > 0 || !this.greeted;
  }

  /** Why the last connection ended, or could not be made. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** The socket, for waits outside of the event loop; null while there is none. */
  get socket(): Fd | null {
    return this.#connection?.socket ?? null;
  }

  /** Queues a request. */
  exchange(exchange: Exchange): void {
    if (this.#closed) return exchange.settle(new ClosedError("Cannot ask the server: the client is closed"));
    if (this.#waiting.length >= WAITING_MAX) {
      return exchange.settle(
        new ConnectionError(`Cannot ask the server: ${WAITING_MAX} requests wait already`),
      );
    }
    this.#waiting.push(exchange);
    this.#sendWaiting();
  }

  /** Takes a request back. Returns false where it has been sent, or settled. */
  withdraw(exchange: Exchange): boolean {
    const at = this.#waiting.indexOf(exchange);
    if (at >= 0) this.#waiting.splice(at, 1);
    return at >= 0;
  }

  /** Does what can be done now: takes answers, sends requests, notices that the server went, tries to reach it. */
  pump(): void {
    if (this.#pumping || this.#closed) return;
    this.#pumping = true;
    try {
      if (this.#connection === null && this.#system.monotonicMs() >= this.#retryAt) this.#connect();
      while (this.#connection !== null) {
        const answer = this.#connection.tryReceive(responseCodec);
        if (answer !== null) this.#answered(answer);
        else if (this.#connection.closed) this.#lost(this.#connection.failure);
        else break;
      }
    } finally {
      this.#pumping = false;
    }
  }

  #connect(): void {
    this.#cancelRetry();
    const { name: clientName, token: clientToken } = this.#client;
    try {
      const socket = this.#system.connect(this.#socketName);
      const { pid } = this.#system.credentials(socket), start = this.#system.processStart(pid);
      this.#connection = new Connection(socket, {}, this.#system);
      this.#connection.onReadable = () => this.pump();
      this.#send({
        request: { request: { case: "init", value: { clientName, wantExtensions: true, clientToken } } },
        settle: (outcome) => this.#greet(outcome, { pid, start }),
        repeat: false,
      });
    } catch (error) {
      this.#failure = error as Error;
      this.#retryLater();
      this.#events.lost(this.#failure);
    }
  }

  #retryLater(): void {
    this.#retryAt = this.#system.monotonicMs() + this.#retryMs;
    this.#cancelRetry = this.#system.after(this.#retryMs, () => {
      // A timer may be a fraction of a millisecond early.
      this.#retryAt = 0;
      this.pump();
    });
    this.#retryMs = Math.min(RETRY_GROWTH * this.#retryMs, RETRY_MS_MAX);
  }

  #greet(outcome: Answer | Error, server: ServerProcess): void {
    if (outcome instanceof Error) return;
    try {
      this.#waiting.unshift(...this.#events.greeted({ answer: outcome, server }));
      this.#greetedAt = this.#system.monotonicMs();
      this.#failure = null;
    } catch (error) {
      this.#connection?.close(error as Error);
    }
  }

  #answered(answer: Answer): void {
    const exchange = this.#inFlight.shift();
    const [asked, got] = [exchange?.request.request?.case, answer.message.response.case];
    if (exchange === undefined || asked !== got) {
      closeAll(answer.fds);
      const error = new ProtocolError(
        `Cannot accept ${got ?? "an empty response"}: ${asked ?? "nothing"} was asked`,
      );
      this.#connection?.close(error);
      exchange?.settle(error);
      return;
    }
    if (this.greeted) this.#cutOff = 0;
    exchange.settle(answer);
    this.#sendWaiting();
  }

  #sendWaiting(): void {
    while (this.greeted && this.#inFlight.length < IN_FLIGHT_MAX && this.#waiting.length > 0) {
      this.#send(this.#waiting.shift()!);
    }
  }

  #send(exchange: Exchange): void {
    let attached: Fd | null;
    try {
      attached = exchange.attach?.() ?? null;
    } catch (error) {
      return exchange.settle(error as Error);
    }
    using fd = attached;
    if (!exchange.oneWay) this.#inFlight.push(exchange);
    sendRequest(this.#connection!, exchange.request, fd ?? undefined);
  }

  #lost(failure: Error | null): void {
    const reason = failure ??
      new ConnectionError(`Cannot reach the server at ${this.#socketName}: it hung up`);
    // A server that answers and hangs up, again and again, is not asked more and more often.
    if (this.greeted && this.#system.monotonicMs() - this.#greetedAt > RETRY_MS_MAX) {
      this.#retryMs = RETRY_MS_MIN;
    }
    this.#connection = null;
    this.#greetedAt = -1;
    this.#failure = reason;
    const unanswered = this.#inFlight.splice(0);
    // Who has sent what makes no sense is not asked again; who was killed while it answered has a successor.
    const killed = reason instanceof CutOffError && ++this.#cutOff <= CUT_OFF_MAX;
    const hopeless = reason instanceof ProtocolError && !killed;
    const repeat = (exchange: Exchange) => exchange.repeat && !hopeless;
    this.#waiting.unshift(...unanswered.filter(repeat));
    this.#retryLater();
    for (const exchange of unanswered) if (!repeat(exchange)) exchange.settle(reason);
    this.#events.lost(reason);
  }

  /** Closes the link; requests without an answer fail. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#cancelRetry();
    this.#connection?.close();
    this.#connection = null;
    this.#greetedAt = -1;
    const reason = new ClosedError("Cannot wait for the server: the client was closed");
    for (const exchange of [...this.#inFlight.splice(0), ...this.#waiting.splice(0)]) exchange.settle(reason);
  }
}
