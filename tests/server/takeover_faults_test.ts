/** Whatever the system refuses a server that takes over: it serves, or the one before goes on. */

import assert from "node:assert/strict";
import { Errno, SystemError } from "../../ffi/errno.ts";
import { operatingSystem } from "../../ffi/system.ts";
import { systemHost } from "../../server/host.ts";
import { Server, type ServerOptions, TakeoverError } from "../../server/server.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { until } from "../deployment.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { RawClient } from "./raw_client.ts";

const DIRECTORY = "/subspace/ChannelDirectory";

/** Calls that the system may refuse, one of which it does. */
class Refusal {
  calls = 0;
  /** What was refused. */
  what: string | null = null;
  #armed = true;

  constructor(private readonly number: number) {}

  /** The same object, of which some methods are refused at their turn. */
  of<Target extends object>(target: Target, names: readonly (keyof Target & string)[]): Target {
    const refusing = names.map((name) => {
      const original = target[name] as (...args: unknown[]) => unknown;
      return [name, (...args: unknown[]) => {
        if (!this.#armed || ++this.calls !== this.number) return original(...args);
        this.what = name;
        throw new SystemError(name, Errno.EMFILE);
      }];
    });
    return { ...target, ...Object.fromEntries(refusing) };
  }

  over(): void {
    this.#armed = false;
  }
}

/** Lets a server be taken over by one that is refused a call. Returns which that was; null if there are not so many. */
async function takeOverWithout(call: number): Promise<{ what: string; served: boolean } | null> {
  const options: ServerOptions = { socket: uniqueSocket("server"), shadowSocket: uniqueSocket("shadow") };
  const shadow = Shadow.start({ socket: options.shadowSocket! });
  // The next one has to make its own channels.
  let server = await Server.start({ ...options, publishServerChannels: false });
  const clients = [await RawClient.connect(options.socket!), await RawClient.connect(options.socket!)];
  try {
    await clients[0].createPublisher("/a", { notifyRetirement: true, numSlots: 10 });
    await clients[1].createSubscriber("/a");
    const refusal = new Refusal(call);
    const next = await Server.takeOver({
      ...options,
      system: refusal.of(operatingSystem, ["connect", "credentials", "groups", "watch"]),
      host: refusal.of(systemHost, [
        "createEventFd",
        "createMemory",
        "createPacketPipe",
        "checkRoomFor",
        "processStart",
        "watchProcess",
      ]),
    }).catch((error) => {
      assert(error instanceof TakeoverError, error);
      return null;
    });
    refusal.over();
    if (next !== null) {
      await server.takenOver;
      server = next;
      await until("it publishes its channels", () => server.table.find(DIRECTORY) !== undefined);
    }
    // Nobody has lost a connection, all are served, and the shadow hears of it.
    for (const client of clients) assert.equal((await client.createPublisher("/b")).error, "", refusal.what!);
    await until("whoever gave up is gone", () => server.numClients === 2);
    await until("the shadow has it", () => shadow.state.channels.has("/b"));
    using another = await RawClient.connect(options.socket!);
    assert.equal((await another.createPublisher("/c")).error, "");
    return refusal.what === null ? null : { what: refusal.what, served: next !== null };
  } finally {
    for (const client of clients) client.close();
    await server.stop(true);
    shadow.stop();
  }
}

Deno.test("a server that is refused anything while it takes over serves all the same, or the one before goes on", () =>
  withBalancedFds(async () => {
    const outcomes = new Set<string>();
    for (let call = 1;; call++) {
      const outcome = await takeOverWithout(call);
      if (outcome === null) break;
      outcomes.add(`${outcome.what}: ${outcome.served ? "serves" : "the old one goes on"}`);
    }
    for (
      const outcome of [
        "connect: the old one goes on",
        "watch: the old one goes on",
        "checkRoomFor: the old one goes on",
        // For the channels of its own, without which it serves.
        "createMemory: serves",
        "createEventFd: serves",
      ]
    ) assert(outcomes.has(outcome), `${outcome}: not among ${[...outcomes].join("; ")}`);
  }));
