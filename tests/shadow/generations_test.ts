import assert from "node:assert/strict";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type ShadowEvent, ShadowEventSchema } from "../../proto/subspace_pb.ts";
import { Generations } from "../../shadow/generations.ts";
import { withBalancedFds } from "../open_fds.ts";
import { type EventInit, fdsFor } from "./peer.ts";

type Init = MessageInitShape<typeof ShadowEventSchema>;

function message(event: EventInit, offset = 0n): ShadowEvent {
  return create(ShadowEventSchema, { event, offset } satisfies Init);
}

/** Copies under test, on a clock that stands at 1000. */
class Copies implements Disposable {
  readonly all = new Generations(() => 1000n);

  apply(event: EventInit, offset?: bigint, wentBack = false): this {
    this.all.apply(message(event, offset), fdsFor(event), wentBack);
    return this;
  }

  /** What a server sends at the start. Theirs has no generation. */
  server(sessionId: bigint, generation: bigint, channels: readonly string[], wentBack = false): this {
    this.apply({ case: "init", value: { sessionId, generation } }, undefined, wentBack);
    for (const channelName of channels) this.apply({ case: "createChannel", value: { channelName } });
    return this;
  }

  complete(offset = 0n): this {
    return this.apply({ case: "stateComplete", value: {} }, offset);
  }

  /** The first act of a server of the reference's after it has sent its state. */
  live(): this {
    return this.apply({ case: "updateChannelOptions", value: { channelName: "/a" } });
  }

  get channels(): string[] {
    return [...this.all.state.channels.keys()];
  }

  get previous(): string[] | null {
    return this.all.previous === null ? null : [...this.all.previous.channels.keys()];
  }

  [Symbol.dispose](): void {
    this.all[Symbol.dispose]();
  }
}

for (const [whose, generation] of [["our", 50n], ["their", 0n]] as const) {
  Deno.test(`a copy that ${whose} server did not finish leaves the one before as it was`, () =>
    withBalancedFds(() => {
      using copies = new Copies().server(1n, 40n, ["/a", "/b"]).complete(3n);
      copies.server(1n, generation, ["/a"]);
      assert.deepEqual(copies.channels, ["/a", "/b"]);
      copies.all.abandon();
      assert.deepEqual(copies.channels, ["/a", "/b"]);
      assert.deepEqual(copies.all.position, { generation: 40n, offset: 3n, complete: true });
      assert.equal(copies.previous, null);
    }));
}

Deno.test("a copy of our server is complete when it says so", () =>
  withBalancedFds(() => {
    using copies = new Copies().server(1n, 40n, ["/a", "/b"]).complete(3n);
    copies.server(1n, 50n, ["/b", "/a"]);
    copies.live();
    assert.deepEqual(copies.channels, ["/a", "/b"]);
    copies.complete(7n);
    assert.deepEqual(copies.channels, ["/b", "/a"]);
    assert.deepEqual(copies.all.position, { generation: 50n, offset: 7n, complete: true });
    assert.equal(copies.previous, null);
  }));

Deno.test("a copy of their server is complete when something follows that its start has not", () =>
  withBalancedFds(() => {
    using copies = new Copies().server(1n, 0n, ["/a"]);
    assert.deepEqual(copies.channels, ["/a"]);
    assert(!copies.all.position.complete);
    copies.live();
    assert.deepEqual(copies.all.position, { generation: 1000n, offset: 1n, complete: true });
    copies.server(1n, 0n, ["/a"]).apply({ case: "addPublisher", value: { channelName: "/a" } });
    assert.equal(copies.all.state.channels.get("/a")!.publishers.size, 0);
    copies.live();
    assert.equal(copies.all.state.channels.get("/a")!.publishers.size, 1);
  }));

Deno.test("what the next server did not take over is kept aside until that happens again", () =>
  withBalancedFds(() => {
    using copies = new Copies().server(1n, 40n, ["/a", "/b"]).complete();
    copies.server(1n, 50n, ["/a"]).complete();
    assert.deepEqual([copies.channels, copies.previous], [["/a"], ["/a", "/b"]]);
    copies.server(1n, 60n, ["/a"]).complete();
    assert.deepEqual([copies.channels, copies.previous], [["/a"], ["/a", "/b"]]);
    copies.server(2n, 0n, ["/a"]).live();
    assert.deepEqual([copies.channels, copies.previous], [["/a"], ["/a"]]);
    assert.equal(copies.all.previous!.sessionId, 1n);
  }));

Deno.test("the channels of a server itself are nothing to be kept aside", () =>
  withBalancedFds(() => {
    using copies = new Copies().server(1n, 40n, ["/subspace/Statistics"]).complete();
    copies.server(2n, 50n, []).complete();
    assert.equal(copies.previous, null);
  }));

Deno.test("a server that goes back to what was kept aside drops what came after it", () =>
  withBalancedFds(() => {
    using copies = new Copies().server(1n, 40n, ["/a"]).complete();
    copies.server(2n, 50n, ["/wrong"]).complete();
    copies.server(1n, 60n, ["/a"], true).complete();
    assert.deepEqual([copies.channels, copies.previous], [["/a"], null]);
  }));

Deno.test("a snapshot of what is kept aside outlives it", () =>
  withBalancedFds(() => {
    using copies = new Copies().server(1n, 40n, ["/a"]).complete();
    copies.server(2n, 50n, ["/b"]).complete();
    using snapshot = copies.all.snapshot(true);
    copies.server(3n, 60n, ["/c"]).complete();
    assert.equal(snapshot.sessionId, 1n);
    assert(!snapshot.channels.get("/a")!.ccb.closed);
    assert.deepEqual(copies.previous, ["/b"]);
  }));

Deno.test("a server may go on only from where the copy is, and a complete one", () =>
  withBalancedFds(() => {
    using copies = new Copies().server(1n, 40n, ["/a"]);
    assert.throws(() => copies.all.checkResumable(copies.all.position), /Cannot resume/);
    copies.complete(3n);
    copies.all.checkResumable({ generation: 40n, offset: 3n, complete: true });
    for (const [generation, offset] of [[40n, 2n], [41n, 3n]]) {
      assert.throws(
        () => copies.all.checkResumable({ generation, offset, complete: true }),
        /the copy here is at generation 40, offset 3/,
      );
    }
    copies.apply({ case: "removeChannel", value: { channelName: "/a" } }, 9n);
    assert.equal(copies.all.position.offset, 9n);
  }));

Deno.test("a server that was recovered from a copy goes on there in a generation of its own", () =>
  withBalancedFds(() => {
    using copies = new Copies().server(1n, 40n, ["/a"]).complete(3n);
    const position = { generation: 40n, offset: 3n, complete: true };
    assert.throws(() => copies.all.checkResumable(position, 39n), /in generation 39, which is older/);
    copies.all.checkResumable(position, 41n);
    copies.apply({ case: "resume", value: { position, generation: 41n } });
    assert.deepEqual(copies.all.position, { generation: 41n, offset: 0n, complete: true });
    assert.deepEqual([copies.channels, copies.previous], [["/a"], null]);
    // The server before comes back: what is here is not its own any more.
    assert.throws(() => copies.all.checkResumable(position), /at generation 41, offset 0/);
    copies.apply({ case: "createChannel", value: { channelName: "/b" } }, 1n);
    copies.apply({ case: "resume", value: { position: copies.all.position, generation: 41n } });
    assert.deepEqual(copies.all.position, { generation: 41n, offset: 1n, complete: true });
  }));
