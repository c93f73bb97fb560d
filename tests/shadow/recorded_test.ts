/** What was recorded from the reference's server and shadow (by `record.ts`), against ours. */

import assert from "node:assert/strict";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { closeAll } from "../../ffi/fd.ts";
import { socketPair } from "../../ffi/unix_socket.ts";
import { ShadowEventSchema } from "../../proto/subspace_pb.ts";
import { Shadow } from "../../shadow/shadow.ts";
import { Connection } from "../../wire/connection.ts";
import { fdCount } from "../../wire/shadow_link.ts";
import { channelFds, closeDump, receiveDump, type StateDump } from "../../wire/state_dump.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { Peer } from "./peer.ts";
import { kindOf, rawEventCodec, type RecordedEvent, type Recording, replay } from "./recording.ts";
import disconnect from "./recorded/disconnect.json" with { type: "json" };
import fresh from "./recorded/fresh.json" with { type: "json" };
import placeholder from "./recorded/placeholder.json" with { type: "json" };
import queues from "./recorded/queues.json" with { type: "json" };
import reload from "./recorded/reload.json" with { type: "json" };
import remap from "./recorded/remap.json" with { type: "json" };
import removal from "./recorded/removal.json" with { type: "json" };
import restart from "./recorded/restart.json" with { type: "json" };
import reuse from "./recorded/reuse.json" with { type: "json" };
import sizes from "./recorded/sizes.json" with { type: "json" };
import split from "./recorded/split.json" with { type: "json" };
import virtual from "./recorded/virtual.json" with { type: "json" };

const recordings: Record<string, Recording> = {
  disconnect,
  fresh,
  placeholder,
  queues,
  reload,
  remap,
  removal,
  restart,
  reuse,
  sizes,
  split,
  virtual,
};

const parse = ({ bytes }: RecordedEvent) => fromBinary(ShadowEventSchema, Uint8Array.fromHex(bytes));

/** Events as text, in an order that does not depend on theirs: a dump has none (section 3.2). */
function sorted(events: readonly RecordedEvent[]): string[] {
  return events.map(({ bytes, fds = [] }) => `${bytes} ${fds.join(", ")}`).sort();
}

/** What our shadow makes of a recorded stream, byte for byte. */
async function dumpAfter(events: readonly RecordedEvent[]): Promise<RecordedEvent[]> {
  const socket = uniqueSocket("shadow");
  using _shadow = Shadow.start({ socket });
  using server = new Peer(socket);
  closeDump(await server.dump());
  await replay(server.connection, events);
  using reader = new Peer(socket);
  const dump: RecordedEvent[] = [];
  while (dump.at(-1)?.bytes !== "4a00") {
    const incoming = await reader.connection.receive(rawEventCodec);
    assert(incoming !== null, "the shadow hung up");
    const kinds = incoming.fds.map(kindOf);
    dump.push({ bytes: incoming.message.bytes.toHex(), ...(kinds.length === 0 ? {} : { fds: kinds }) });
    closeAll(incoming.fds);
  }
  return dump;
}

/** A recorded dump, received as a server does. */
async function receive(events: readonly RecordedEvent[]): Promise<StateDump> {
  const [a, b] = socketPair();
  using from = new Connection(a);
  using to = new Connection(b);
  const [dump] = await Promise.all([receiveDump(to), replay(from, events)]);
  return dump;
}

for (const [name, { story, events, dump }] of Object.entries(recordings)) {
  Deno.test(`recorded (${name}): every event is written byte for byte as the reference does`, () => {
    for (const recorded of [...events, ...dump]) {
      const message = parse(recorded);
      assert.notEqual(message.event.case, undefined);
      assert.equal(message.$unknown, undefined);
      assert.equal(toBinary(ShadowEventSchema, message).toHex(), recorded.bytes);
      assert.equal(fdCount(message), recorded.fds?.length ?? 0);
    }
  });

  Deno.test(`recorded (${name}): a server can take the reference's dump`, () =>
    withBalancedFds(async () => {
      const received = await receive(dump);
      const header = parse(dump[0]).event;
      assert(header.case === "stateDump");
      assert.equal(received.sessionId, header.value.sessionId);
      assert.equal(received.channels.size, header.value.numChannels);
      const fds = [received.scb!, ...[...received.channels.values()].flatMap(channelFds)];
      assert.deepEqual(fds.map(kindOf).sort(), dump.flatMap(({ fds = [] }) => fds).sort());
      closeDump(received);
    }));

  if (name === "reuse") continue;
  Deno.test(`recorded (${name}): our shadow makes of it what the reference's does. ${story}`, () =>
    withBalancedFds(async () => assert.deepEqual(sorted(await dumpAfter(events)), sorted(dump))));
}

Deno.test("recorded (reuse): a re-used id has the new user's pid in ours, the old one's in the reference (9.2, 5)", () =>
  withBalancedFds(async () => {
    const pids = (dump: readonly RecordedEvent[]) =>
      dump.flatMap((recorded) => {
        const { event } = parse(recorded);
        return event.case === "addSubscriber" ? [event.value.processId] : [];
      });
    assert.deepEqual(pids(reuse.dump), [1n]);
    const ours = await dumpAfter(reuse.events);
    assert.deepEqual(pids(ours), [2n]);
    const others = (dump: readonly RecordedEvent[]) =>
      sorted(dump.filter((recorded) => parse(recorded).event.case !== "addSubscriber"));
    assert.deepEqual(others(ours), others(reuse.dump));
  }));
