import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { identityOf } from "../../ffi/fd_identity.ts";
import { ShadowEventSchema } from "../../proto/subspace_pb.ts";
import { FdStore, type Keeper, restore } from "../../shadow/fd_store.ts";
import { Generations } from "../../shadow/generations.ts";
import { channelFds, type StateDump } from "../../wire/state_dump.ts";
import { Random } from "../chaos/random.ts";
import { withBalancedFds } from "../open_fds.ts";
import { type EventInit, fdsFor } from "./peer.ts";

/** A service manager: keeps fds, when it has time. */
class KeptFds implements Keeper, Disposable {
  readonly fds = new Map<string, Fd>();
  busy = false;

  keep(name: string, fd: Fd): boolean {
    if (this.busy) return false;
    if (!this.fds.has(name)) this.fds.set(name, fd.duplicate());
    return true;
  }

  forget(name: string): boolean {
    if (this.busy) return false;
    this.fds.get(name)?.close();
    this.fds.delete(name);
    return true;
  }

  [Symbol.dispose](): void {
    closeAll(this.fds.values());
  }
}

/** A state, in words: two are the same if these are. */
function wordsOf(state: StateDump): string {
  const channels = [...state.channels].sort(([a], [b]) => a < b ? -1 : 1).map(([name, channel]) => [
    name,
    [...channel.publishers.keys()],
    [...channel.subscribers.keys()],
    channelFds(channel).map(identityOf),
  ]);
  return JSON.stringify([
    String(state.sessionId),
    state.scb === null ? null : identityOf(state.scb),
    channels,
  ]);
}

function allWords({ state, previous, position }: Generations): string {
  return [
    wordsOf(state),
    previous && wordsOf(previous),
    `${position.generation}/${position.offset}/${position.complete}`,
  ]
    .join("\n");
}

/** A shadow that leaves its state with a manager. */
class KeptShadow implements Disposable {
  readonly generations = new Generations(() => 1n);
  readonly store: FdStore;

  constructor(readonly manager: KeptFds) {
    restore(manager.fds, this.generations);
    this.store = new FdStore(manager, manager.fds.keys());
    this.store.tidy(this.generations);
  }

  apply(init: EventInit, offset = 0n): void {
    const message = create(ShadowEventSchema, { event: init, offset }), fds = fdsFor(init);
    this.store.note(message, fds, false);
    try {
      this.generations.apply(message, fds);
    } catch {
      // For what is unknown: it is noted too, and fails again.
    }
    this.store.tidy(this.generations);
  }

  /** Everything that a server has, with the end of it. */
  server(sessionId: bigint, generation: bigint, channels: readonly string[]): void {
    this.apply({ case: "init", value: { sessionId, generation } });
    for (const channelName of channels) this.apply({ case: "createChannel", value: { channelName } });
    this.apply({ case: "stateComplete", value: {} });
  }

  /** What somebody asks a shadow to do. */
  change(what: "rollBack" | "forget"): void {
    this.generations[what]();
    this.store.begin(this.generations);
  }

  [Symbol.dispose](): void {
    this.store[Symbol.dispose]();
    this.generations[Symbol.dispose]();
  }
}

/** What a shadow has that is started with what a manager kept. */
function restored(manager: KeptFds): string {
  using generations = new Generations(() => 1n);
  restore(manager.fds, generations);
  return allWords(generations);
}

const channelName = "/a";

Deno.test("a shadow that is killed gets its channels, users and the state kept aside back from its keeper", () =>
  withBalancedFds(() => {
    using manager = new KeptFds();
    let before: string;
    {
      using shadow = new KeptShadow(manager);
      shadow.server(1n, 5n, ["/a", "/lost"]);
      shadow.server(1n, 6n, ["/a"]);
      shadow.apply({
        case: "addPublisher",
        value: { channelName, publisherId: 3, notifyRetirement: true },
      }, 1n);
      shadow.apply({ case: "addSubscriber", value: { channelName, subscriberId: 4 } }, 2n);
      before = allWords(shadow.generations);
      assert.match(before, /"\/lost"/);
      assert.match(before, /6\/2\/true$/);
    }
    assert.equal(restored(manager), before);
    using again = new KeptShadow(manager);
    assert.equal(allWords(again.generations), before);
  }));

Deno.test("a server that had not sent everything when the shadow was killed leaves the copy before it", () =>
  withBalancedFds(() => {
    using manager = new KeptFds();
    using shadow = new KeptShadow(manager);
    shadow.server(1n, 5n, ["/a", "/b"]);
    const before = allWords(shadow.generations);
    shadow.apply({ case: "init", value: { sessionId: 1n, generation: 6n } });
    shadow.apply({ case: "createChannel", value: { channelName: "/a" } });
    assert.equal(restored(manager), before);
  }));

Deno.test("a server that hangs up half-way, and one that goes on from before, are told apart", () =>
  withBalancedFds(() => {
    using manager = new KeptFds();
    using shadow = new KeptShadow(manager);
    shadow.server(1n, 5n, ["/a"]);
    shadow.apply({ case: "init", value: { sessionId: 1n, generation: 6n } });
    shadow.generations.abandon();
    const position = { generation: 5n, offset: 0n, complete: true };
    shadow.apply({ case: "resume", value: { position } });
    shadow.apply({ case: "addSubscriber", value: { channelName, subscriberId: 4 } }, 1n);
    assert.match(allWords(shadow.generations), /5\/1\/true$/);
    assert.equal(restored(manager), allWords(shadow.generations));
    shadow.apply({ case: "resume", value: { position: shadow.generations.position, generation: 7n } });
    assert.match(allWords(shadow.generations), /7\/0\/true$/);
    assert.equal(restored(manager), allWords(shadow.generations));
  }));

Deno.test("what was rolled back stays so, and can be undone, whatever channels there are", () =>
  withBalancedFds(() => {
    for (const newest of [["/a", "/new"], ["/a"], ["/subspace/Statistics"], []]) {
      using manager = new KeptFds();
      using shadow = new KeptShadow(manager);
      shadow.server(1n, 5n, ["/a", "/lost"]);
      shadow.server(1n, 6n, newest);
      shadow.change("rollBack");
      const rolledBack = allWords(shadow.generations);
      assert.match(rolledBack, /^.*"\/lost".*\n\[/, "and something is kept aside");
      assert.equal(restored(manager), rolledBack);
      {
        using again = new KeptShadow(manager);
        again.change("rollBack");
        assert.deepEqual([...again.generations.state.channels.keys()], newest);
      }
      assert.match(restored(manager), /\n.*"\/lost"/);
    }
  }));

Deno.test("what was forgotten does not come back, nor get lost what a server is sending meanwhile", () =>
  withBalancedFds(() => {
    using manager = new KeptFds();
    using shadow = new KeptShadow(manager);
    shadow.server(1n, 5n, ["/a", "/lost"]);
    shadow.server(1n, 6n, ["/a"]);
    shadow.apply({ case: "init", value: { sessionId: 1n, generation: 7n } });
    shadow.apply({ case: "createChannel", value: { channelName: "/b" } });
    shadow.change("forget");
    assert.equal(restored(manager), allWords(shadow.generations));
    assert.doesNotMatch(restored(manager), /"\/lost"/);
    shadow.apply({ case: "createChannel", value: { channelName: "/c" } });
    assert.equal(restored(manager), allWords(shadow.generations));
    shadow.apply({ case: "stateComplete", value: {} });
    assert.match(restored(manager), /^.*"\/b".*"\/c".*\n.*"\/a".*\n7\/0\/true$/);
    assert.equal(restored(manager), allWords(shadow.generations));
  }));

Deno.test("a first state that was cut off does not pass for a complete one, however often the shadow is killed", () =>
  withBalancedFds(() => {
    using manager = new KeptFds();
    {
      using shadow = new KeptShadow(manager);
      shadow.apply({ case: "init", value: { sessionId: 1n, generation: 5n } });
      shadow.apply({ case: "createChannel", value: { channelName } });
    }
    for (let i = 0; i < 3; i++) {
      using shadow = new KeptShadow(manager);
      assert.match(allWords(shadow.generations), /"\/a".*\n5\/\d+\/false$/s);
    }
  }));

Deno.test("what a shadow does not have any more does not stay with its keeper", () =>
  withBalancedFds(() => {
    using manager = new KeptFds();
    using shadow = new KeptShadow(manager);
    shadow.server(1n, 5n, [channelName]);
    for (let i = 0; i < 2000; i++) {
      shadow.apply({ case: "addSubscriber", value: { channelName, subscriberId: i } });
      shadow.apply({ case: "removeSubscriber", value: { channelName, subscriberId: i } });
    }
    assert(manager.fds.size < 600, `${manager.fds.size} fds are kept`);
    const journal = [...manager.fds].find(([name]) => name.startsWith("journal-"))!;
    assert(journal[1].stat().bytes < 1024 * 1024);
    assert.equal(restored(manager), allWords(shadow.generations));
  }));

Deno.test("a keeper that takes nothing makes nobody wait, and gets everything when it does again", async () =>
  await withBalancedFds(async () => {
    using manager = new KeptFds();
    using shadow = new KeptShadow(manager);
    shadow.server(1n, 5n, [channelName]);
    manager.busy = true;
    for (let i = 0; i < 5000; i++) {
      shadow.apply({ case: "addSubscriber", value: { channelName, subscriberId: i % 1000 } });
    }
    assert(shadow.store.queued <= 4096);
    manager.busy = false;
    while (shadow.store.queued > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    shadow.apply({ case: "addSubscriber", value: { channelName, subscriberId: 7 } });
    assert.equal(restored(manager), allWords(shadow.generations));
  }));

/** What happens to a shadow, at random. */
function happening(random: Random): EventInit {
  const name = `/${random.below(4)}`, id = random.below(3);
  const kinds: (() => EventInit)[] = [
    () => ({ case: "createChannel", value: { channelName: name } }),
    () => ({ case: "removeChannel", value: { channelName: name } }),
    () => ({
      case: "addPublisher",
      value: { channelName: name, publisherId: id, notifyRetirement: id === 1 },
    }),
    () => ({ case: "addSubscriber", value: { channelName: name, subscriberId: id } }),
    () => ({ case: "removePublisher", value: { channelName: name, publisherId: id } }),
    () => ({ case: "init", value: { sessionId: 1n, generation: BigInt(random.below(3)) } }),
    () => ({ case: "stateComplete", value: {} }),
    () => ({ case: "updateChannelOptions", value: { channelName: name } }),
  ];
  return random.pick(kinds)();
}

/** A rollback is refused while a server is connected. */
function changeIn({ generations: { filling } }: KeptShadow, random: Random): "rollBack" | "forget" {
  return filling || random.below(2) === 0 ? "forget" : "rollBack";
}

Deno.test("killed at any moment, a shadow has a state again that it had, and the last one if its keeper was in time", () =>
  withBalancedFds(() => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = new Random(seed);
      using manager = new KeptFds();
      using first = new KeptShadow(manager);
      first.server(1n, 5n, ["/0", "/1"]);
      const had = new Set([allWords(first.generations)]);
      let shadow = first;
      for (let step = 0; step < 60; step++) {
        manager.busy = random.below(8) === 0 ? !manager.busy : manager.busy;
        if (shadow.generations.previous !== null && random.below(8) === 0) {
          shadow.change(changeIn(shadow, random));
        } else shadow.apply(happening(random));
        had.add(allWords(shadow.generations));
        const inTime = shadow.store.queued === 0;
        const now = restored(manager);
        assert(had.has(now), `seed ${seed}, step ${step}: never had ${now}`);
        if (inTime) assert.equal(now, allWords(shadow.generations), `seed ${seed}, step ${step}`);
        if (random.below(20) !== 0) continue;
        shadow[Symbol.dispose]();
        manager.busy = false;
        shadow = new KeptShadow(manager);
      }
      shadow[Symbol.dispose]();
    }
  }));
