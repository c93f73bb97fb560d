import assert from "node:assert/strict";
import { createEventFd, drain, signal } from "../../ffi/eventfd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { Mirror } from "../../shadow/mirror.ts";
import { withBalancedFds } from "../open_fds.ts";
import { event, type EventInit, fdsFor } from "./peer.ts";

const channelName = "/a";

function apply(mirror: Mirror, init: EventInit, fds = fdsFor(init)): void {
  mirror.apply(event(init), fds);
}

/** A mirror with one session and one channel. */
function mirrorOfChannel(value: Record<string, unknown> = {}): Mirror {
  const mirror = new Mirror();
  apply(mirror, { case: "init", value: { sessionId: 7n } });
  apply(mirror, {
    case: "createChannel",
    value: { channelName, channelId: 3, numSlots: 4, slotSize: 256, ...value },
  });
  return mirror;
}

Deno.test("a mirror starts empty, without a session", () => {
  using mirror = new Mirror();
  assert.equal(mirror.state.sessionId, 0n);
  assert.equal(mirror.state.scb, null);
  assert.equal(mirror.state.channels.size, 0);
});

Deno.test("create_channel of a known name replaces metadata and control blocks, and keeps users and buffers", () =>
  withBalancedFds(() => {
    using mirror = mirrorOfChannel({ numSlots: 0, slotSize: 0 });
    apply(mirror, { case: "addSubscriber", value: { channelName, subscriberId: 0 } });
    apply(mirror, { case: "registerClientBuffer", value: { metadata: { channelName }, hasFd: true } });
    const [ccb, bcb] = [createMemory("ccb", 45440), createMemory("bcb", 12288)];
    apply(mirror, {
      case: "createChannel",
      value: { channelName, numSlots: 10, slotSize: 64, checksumSize: 20 },
    }, [
      ccb,
      bcb,
    ]);
    const channel = mirror.state.channels.get(channelName)!;
    assert.equal(channel.ccb, ccb);
    assert.equal(channel.bcb, bcb);
    assert.equal(channel.info.numSlots, 10);
    assert.equal(channel.info.checksumSize, 20);
    assert.deepEqual([...channel.subscribers.keys()], [0]);
    assert.equal(channel.clientBuffers.size, 1);
  }));

Deno.test("a user id that is added again has the new fds and the new pid (section 9.2, 5)", () =>
  withBalancedFds(() => {
    using mirror = mirrorOfChannel();
    apply(mirror, { case: "addPublisher", value: { channelName, publisherId: 0, processId: 1n } });
    apply(mirror, { case: "addSubscriber", value: { channelName, subscriberId: 1, processId: 1n } });
    const [trigger, poll] = [createEventFd(), createEventFd()];
    apply(mirror, { case: "addPublisher", value: { channelName, publisherId: 0, processId: 2n } });
    apply(mirror, { case: "addSubscriber", value: { channelName, subscriberId: 1, processId: 2n } }, [
      trigger,
      poll,
    ]);
    const { publishers, subscribers } = mirror.state.channels.get(channelName)!;
    assert.equal(publishers.get(0)!.info.processId, 2n);
    assert.equal(subscribers.get(1)!.info.processId, 2n);
    signal(subscribers.get(1)!.trigger.number);
    assert(drain(trigger.number));
  }));

Deno.test("update_channel_options becomes a part of create_channel", () => {
  using mirror = mirrorOfChannel({
    type: new Uint8Array([1, 2]),
    mux: "",
    maxPublishers: 9,
    hasMaxPublishers: true,
  });
  const before = mirror.state.channels.get(channelName)!.info;
  apply(mirror, {
    case: "updateChannelOptions",
    value: {
      channelName,
      hasSplitBufferOptions: true,
      useSplitBuffers: true,
      splitBuffersOverBridge: true,
      hasMaxSubscribers: true,
      maxSubscribers: 5,
    },
  });
  const { info } = mirror.state.channels.get(channelName)!;
  assert.deepEqual(info, {
    ...before,
    hasSplitBufferOptions: true,
    useSplitBuffers: true,
    splitBuffersOverBridge: true,
    hasMaxPublishers: false,
    maxPublishers: 0,
    hasMaxSubscribers: true,
    maxSubscribers: 5,
  });
  assert.equal(before.maxPublishers, 9);
});

Deno.test("registered buffers are told apart by session, index, slot and part, and leave by index", () =>
  withBalancedFds(() => {
    using mirror = mirrorOfChannel();
    const register = (bufferIndex: number, slotId: number, isPrefix: boolean, fullSize = 1n) =>
      apply(mirror, {
        case: "registerClientBuffer",
        value: {
          hasFd: true,
          metadata: { channelName, sessionId: 7n, bufferIndex, slotId, isPrefix, fullSize },
        },
      });
    register(0, 0, true);
    register(0, 0, false);
    register(0, 1, false);
    register(1, 0, false);
    register(0, 1, false, 2n);
    const { clientBuffers } = mirror.state.channels.get(channelName)!;
    assert.equal(clientBuffers.size, 4);
    assert.equal([...clientBuffers.values()].filter(({ metadata }) => metadata.fullSize === 2n).length, 1);
    const value = { channelName, sessionId: 7n, bufferIndex: 0 };
    apply(mirror, { case: "unregisterClientBuffer", value: { ...value, sessionId: 8n } });
    assert.equal(clientBuffers.size, 4);
    apply(mirror, { case: "unregisterClientBuffer", value });
    assert.deepEqual([...clientBuffers.values()].map(({ metadata }) => metadata.bufferIndex), [1]);
  }));

Deno.test("events for what is unknown throw or do nothing, change nothing and leak nothing", () =>
  withBalancedFds(() => {
    using mirror = mirrorOfChannel();
    const refused: [EventInit, RegExp][] = [
      [
        { case: "addPublisher", value: { channelName: "/b", notifyRetirement: true } },
        /there is no channel \/b/,
      ],
      [{ case: "addSubscriber", value: { channelName: "/b" } }, /there is no channel \/b/],
      [{ case: "updateChannelOptions", value: { channelName: "/b" } }, /there is no channel \/b/],
      [
        { case: "registerClientBuffer", value: { hasFd: true, metadata: { channelName: "/b" } } },
        /no channel \/b/,
      ],
      [{ case: "registerClientBuffer", value: { hasFd: true } }, /there is no channel/],
      [{ case: "stateDump", value: { sessionId: 1n } }, /from a shadow to a server/],
      [{ case: "stateDone", value: {} }, /from a shadow to a server/],
      [{ case: undefined }, /unknown kind/],
    ];
    for (const [init, error] of refused) assert.throws(() => apply(mirror, init), error);
    apply(mirror, { case: "removeChannel", value: { channelName: "/b", channelId: 3 } });
    apply(mirror, { case: "removePublisher", value: { channelName: "/b", publisherId: 0 } });
    apply(mirror, { case: "removePublisher", value: { channelName, publisherId: 0 } });
    apply(mirror, { case: "removeSubscriber", value: { channelName, subscriberId: -1 } });
    apply(mirror, { case: "unregisterClientBuffer", value: { channelName: "/b" } });
    assert.deepEqual([...mirror.state.channels.keys()], [channelName]);
  }));

Deno.test("init begins a generation: all channels of the one before are gone, and their fds", () =>
  withBalancedFds(() => {
    using mirror = mirrorOfChannel();
    apply(mirror, { case: "addPublisher", value: { channelName, notifyRetirement: true } });
    apply(mirror, { case: "init", value: { sessionId: 7n } });
    assert.equal(mirror.state.channels.size, 0);
    assert.equal(mirror.state.sessionId, 7n);
    assert(!mirror.state.scb!.closed);
  }));

Deno.test("a snapshot stays as it was while every event there is changes the mirror", () =>
  withBalancedFds(() => {
    using mirror = mirrorOfChannel();
    apply(mirror, { case: "addPublisher", value: { channelName, publisherId: 0 } });
    apply(mirror, { case: "addSubscriber", value: { channelName, subscriberId: 1 } });
    apply(mirror, { case: "registerClientBuffer", value: { hasFd: true, metadata: { channelName } } });
    using snapshot = mirror.snapshot();
    const channel = snapshot.channels.get(channelName)!;
    const { info, ccb } = channel;
    const publisher = channel.publishers.get(0)!;
    const buffer = [...channel.clientBuffers.values()][0];

    apply(mirror, { case: "createChannel", value: { channelName, numSlots: 99 } });
    apply(mirror, { case: "updateChannelOptions", value: { channelName, useSplitBuffers: true } });
    apply(mirror, { case: "addPublisher", value: { channelName, publisherId: 0 } });
    apply(mirror, { case: "addPublisher", value: { channelName, publisherId: 5 } });
    apply(mirror, { case: "removeSubscriber", value: { channelName, subscriberId: 1 } });
    apply(mirror, { case: "unregisterClientBuffer", value: { channelName } });
    apply(mirror, { case: "removeChannel", value: { channelName } });
    apply(mirror, { case: "init", value: { sessionId: 8n } });

    assert.equal(snapshot.sessionId, 7n);
    assert.equal(channel.info, info);
    assert.equal(info.numSlots, 4);
    assert.equal(channel.ccb, ccb);
    assert.deepEqual([...channel.publishers], [[0, publisher]]);
    assert.deepEqual([...channel.subscribers.keys()], [1]);
    const fds = [snapshot.scb, ccb, channel.bcb, publisher.poll, channel.subscribers.get(1)!.poll, buffer.fd];
    assert(fds.every((fd) => fd !== null && !fd.closed));
  }));

Deno.test("what a snapshot held is closed when no older one shows it, in whatever order they are released", () =>
  withBalancedFds(() => {
    for (const order of [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]]) {
      using mirror = mirrorOfChannel();
      const snapshots = [1, 2, 3].map(() => {
        const snapshot = mirror.snapshot();
        apply(mirror, { case: "createChannel", value: { channelName } });
        return snapshot;
      });
      const shown = snapshots.map(({ channels }) => channels.get(channelName)!.ccb);
      assert.equal(mirror.heldFds, 6);
      const open = new Set([0, 1, 2]);
      for (const i of order) {
        snapshots[i][Symbol.dispose]();
        snapshots[i][Symbol.dispose]();
        open.delete(i);
        for (const j of open) assert(!shown[j].closed);
      }
      assert.equal(mirror.heldFds, 0);
      assert(shown.every((fd) => fd.closed));
    }
  }));

Deno.test("snapshots that overlap for ever do not keep what is older than all of them", () => {
  using mirror = mirrorOfChannel();
  let last = mirror.snapshot();
  for (let i = 0; i < 10; i++) {
    apply(mirror, { case: "createChannel", value: { channelName } });
    const next = mirror.snapshot();
    last[Symbol.dispose]();
    last = next;
    assert.equal(mirror.heldFds, 0);
  }
  last[Symbol.dispose]();
});

Deno.test("a snapshot shows physical channels before virtual ones", () => {
  using mirror = new Mirror();
  for (const [name, mux] of [["/v1", "/mux"], ["/b", ""], ["/v2", "/mux"], ["/mux", ""]]) {
    apply(mirror, { case: "createChannel", value: { channelName: name, mux } });
  }
  using snapshot = mirror.snapshot();
  assert.deepEqual([...snapshot.channels.keys()], ["/b", "/mux", "/v1", "/v2"]);
});
