/**
 * The table under random requests from a seed: whatever clients ask for, in whatever order, its invariants hold, and
 * a shadow that is told of each change knows the same as the table. The simulation of whole deployments asks for less:
 * no client buffers, no types, nothing that is refused.
 */

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { createMemory } from "../../ffi/memory_object.ts";
import { RequestSchema, ResponseSchema } from "../../proto/subspace_pb.ts";
import { ChannelTable } from "../../server/channel_table.ts";
import { systemHost } from "../../server/host.ts";
import { recover } from "../../server/recovery.ts";
import { answer } from "../../server/requests.ts";
import { Client } from "../../server/users.ts";
import type { ShadowEventInit } from "../../wire/shadow_link.ts";
import type { ChannelRecord, StateDump } from "../../wire/state_dump.ts";
import { Random } from "../chaos/random.ts";
import { withBalancedFds } from "../open_fds.ts";

const SEEDS = 12;
const STEPS = 400;

type RequestInit = NonNullable<MessageInitShape<typeof RequestSchema>["request"]>;

class Dice extends Random {
  chance(percent: number): boolean {
    return this.below(100) < percent;
  }
}

const PLAIN = ["/a", "/b", "/c"], VIRTUAL = ["/v1", "/v2", "/v3"], MUXES = ["/m", "/n"];

/** A request that makes sense more often than not. */
function randomRequest(dice: Dice, sessionId: bigint): RequestInit {
  const virtual = dice.chance(40);
  const channelName = dice.chance(5) ? dice.pick(MUXES) : dice.pick(virtual ? VIRTUAL : PLAIN);
  const mux = virtual ? dice.pick(MUXES) : "";
  const id = dice.below(6) - 1;
  const type = new TextEncoder().encode(dice.pick(["", "", "", "T", "U"]));
  const common = { channelName, mux, vchanId: dice.below(4) - 1, type, processId: BigInt(Deno.pid) };
  const part = { channelName, sessionId: dice.chance(90) ? sessionId : 1n, bufferIndex: dice.below(2) };
  switch (dice.below(9)) {
    case 0:
    case 1: {
      const value = {
        ...common,
        numSlots: dice.pick([8, 16, 16, 16]),
        slotSize: dice.pick([64, 64, 256]),
        subscriberQueueArenaSize: dice.pick([0n, 0n, 0n, 4096n]),
        isReliable: dice.chance(50),
        isLocal: dice.chance(5),
        isFixedSize: dice.chance(5),
        notifyRetirement: dice.chance(20),
        checksumSize: dice.pick([0, 0, 0, 20]),
        maxPublishers: dice.pick([0, 0, 0, 3]),
        useSplitBuffers: dice.chance(10),
        maxOutstandingSlotLeases: dice.below(3),
        publisherId: dice.chance(20) ? id : -1,
      };
      return { case: "createPublisher", value };
    }
    case 2:
    case 3: {
      const value = {
        ...common,
        isReliable: dice.chance(50),
        maxActiveMessages: dice.below(3),
        maxSubscribers: dice.pick([0, 0, 0, 3]),
        subscriberQueueSize: dice.pick([0, 0, 0, 8, 100]),
        subscriberId: dice.chance(20) ? id : -1,
      };
      return { case: "createSubscriber", value };
    }
    case 4:
      return { case: "removePublisher", value: { channelName, publisherId: id } };
    case 5:
      return { case: "removeSubscriber", value: { channelName, subscriberId: id } };
    case 6: {
      const metadata = { ...part, slotId: dice.below(3), isPrefix: dice.chance(30) };
      return { case: "registerClientBuffer", value: { metadata, hasFd: dice.chance(50) } };
    }
    case 7:
      return { case: "unregisterClientBuffer", value: part };
    default:
      return {
        case: dice.pick(["getTriggers", "getChannelInfo", "getChannelStats"]),
        value: { channelName },
      };
  }
}

/** What a shadow knows: texts and fds by name and id. */
type Knowledge = Record<string, unknown>;

/** A shadow reduced to what it is told. */
class Listener {
  readonly knowledge = new Map<string, Knowledge>();

  readonly replicate = ({ event }: ShadowEventInit, fds: readonly Fd[]): void => {
    const value = event!.value as Record<string, never>;
    const { channelName } = value.metadata ?? value;
    const channel = this.knowledge.get(channelName)!;
    const set = (key: string, what: unknown) => channel[key] = what;
    switch (event!.case) {
      case "createChannel":
        this.knowledge.set(channelName, { ...channel, info: text(value), memory: fds.map(inode) });
        break;
      case "removeChannel":
        this.knowledge.delete(channelName);
        break;
      case "addPublisher":
        set(`publisher ${value.publisherId}`, [text(value), fds.map(inode)]);
        break;
      case "addSubscriber":
        set(`subscriber ${value.subscriberId}`, [text(value), fds.map(inode)]);
        break;
      case "removePublisher":
        assert(delete channel[`publisher ${value.publisherId}`]);
        break;
      case "removeSubscriber":
        assert(delete channel[`subscriber ${value.subscriberId}`]);
        break;
      case "registerClientBuffer":
        set(`buffer ${bufferOf(value.metadata)}`, fds.map(inode));
        break;
      case "unregisterClientBuffer":
        for (const key of Object.keys(channel)) {
          if (key.startsWith(`buffer ${value.bufferIndex}/`)) delete channel[key];
        }
        break;
    }
  };
}

/** What the table would tell a shadow that comes now. */
function tableKnowledge(table: ChannelTable): Map<string, Knowledge> {
  return new Map(Array.from(table.records(), (record) => [record.info.channelName, recordKnowledge(record)]));
}

function recordKnowledge(record: ChannelRecord): Knowledge {
  const knowledge: Knowledge = { info: text(record.info), memory: [record.ccb, record.bcb].map(inode) };
  for (const [id, { info, poll, trigger, retirement }] of record.publishers) {
    const fds = retirement === null ? [poll, trigger] : [poll, trigger, retirement.read, retirement.write];
    knowledge[`publisher ${id}`] = [text(info), fds.map(inode)];
  }
  for (const [id, { info, trigger, poll }] of record.subscribers) {
    knowledge[`subscriber ${id}`] = [text(info), [trigger, poll].map(inode)];
  }
  for (const { metadata, fd } of record.clientBuffers.values()) {
    knowledge[`buffer ${bufferOf(metadata)}`] = fd === null ? [] : [inode(fd)];
  }
  return knowledge;
}

const inode = (fd: Fd) => `${fd.number} ${fd.stat().inode}`;
const bufferOf = (part: { bufferIndex: number; slotId: number; isPrefix: boolean }) =>
  `${part.bufferIndex}/${part.isPrefix ? "prefix" : part.slotId}`;

/** Of an event, without what follows from users and options: that is told by events of their own. */
function text(info: object): string {
  const derived = /^(\$|is(Local|Reliable|FixedSize)$|has|max(Publishers|Subscribers)|useSplit|splitBuffers)/;
  const user = "publisherId" in info || "subscriberId" in info;
  const fields = Object.entries(info).filter(([key]) => !key.startsWith("$") && (user || !derived.test(key)));
  return JSON.stringify(
    fields,
    (_, value) => typeof value === "bigint" ? `${value}n` : value instanceof Uint8Array ? [...value] : value,
  );
}

function checkInvariants(table: ChannelTable, clients: readonly Client[]): void {
  const seen = new Set<number>();
  for (const channel of table.channels()) {
    assert(!channel.isEmpty, `${channel.name} is empty`);
    const { physical } = channel;
    if (channel.isVirtual) {
      assert.equal(physical.virtualChannels!.get(channel.vchanId), channel);
      continue;
    }
    assert(!seen.has(physical.id), `id ${physical.id} is used twice`);
    seen.add(physical.id);
    const users = [...physical.users()];
    assert.equal(new Set(users.map(({ id }) => id)).size, users.length);
    assert.equal(physical.userIds.size, users.length);
    const publishers = users.filter(({ kind }) => kind === "publisher"),
      subscribers = users.length - publishers.length;
    assert.deepEqual([physical.census.publishers, physical.census.subscribers], [
      publishers.length,
      subscribers,
    ]);
    assert.deepEqual([physical.counters.numPubs, physical.counters.numSubs], [
      publishers.length,
      subscribers,
    ]);
    for (const user of users) {
      assert(user.client?.users.has(user), "a user belongs to its client");
      if (user.kind === "subscriber") assert(physical.blocks.hasSubscriber(user.id));
    }
  }
  const users = clients.reduce((sum, client) => sum + client.users.size, 0);
  const there = [...table.channels()].reduce((sum, c) => sum + c.publishers.size + c.subscribers.size, 0);
  assert.equal(users, there);
}

/** The table's state as a dump of its own, as a shadow would send it. */
function dump(table: ChannelTable): StateDump {
  const channels = Array.from(
    table.records(),
    (record): [string, ChannelRecord] => [record.info.channelName, {
      info: structuredClone(record.info),
      ccb: record.ccb.duplicate(),
      bcb: record.bcb.duplicate(),
      publishers: new Map(
        record.publishers.entries().map(([id, { info, poll, trigger, retirement }]) => [id, {
          info: structuredClone(info),
          poll: poll.duplicate(),
          trigger: trigger.duplicate(),
          retirement: retirement &&
            { read: retirement.read.duplicate(), write: retirement.write.duplicate() },
        }]),
      ),
      subscribers: new Map(
        record.subscribers.entries().map(([id, { info, poll, trigger }]) => [id, {
          info: structuredClone(info),
          poll: poll.duplicate(),
          trigger: trigger.duplicate(),
        }]),
      ),
      clientBuffers: new Map(
        record.clientBuffers.entries().map(([key, { metadata, fd }]) => [key, {
          metadata: structuredClone(metadata),
          fd: fd?.duplicate() ?? null,
        }]),
      ),
    }],
  );
  return { sessionId: table.sessionId, scb: table.scb.duplicate(), channels: new Map(channels) };
}

function simulate(seed: number): void {
  const dice = new Dice(seed);
  const table = ChannelTable.create(systemHost);
  const listener = new Listener();
  table.effects = { replicate: listener.replicate, directoryChanged: () => {} };
  const clients = Array.from({ length: 4 }, () => new Client(Deno.pid));
  let granted = 0;
  for (let step = 0; step < STEPS; step++) {
    const who = dice.below(clients.length);
    if (dice.chance(3)) {
      table.disconnect(clients[who]);
      clients[who] = new Client(Deno.pid);
    } else {
      const init = create(RequestSchema, { request: randomRequest(dice, table.sessionId) });
      const request = fromBinary(RequestSchema, toBinary(RequestSchema, init));
      const fds = request.request.case === "registerClientBuffer" && request.request.value.hasFd
        ? [createMemory("part", 64)]
        : [];
      const result = answer(table, clients[who], request, fds);
      closeAll(fds);
      if (result !== null) {
        const response = create(ResponseSchema, { response: result.response });
        toBinary(ResponseSchema, response);
        if (!(response.response.value as { error?: string }).error) granted++;
        for (const fd of result.fds) assert(!fd.closed);
      }
    }
    checkInvariants(table, clients);
    assert.deepEqual(tableKnowledge(table), listener.knowledge, `seed ${seed}, step ${step}`);
  }
  assert(granted > STEPS / 4, "most of what was asked for makes sense");

  // Whatever has happened: a server that recovers has the same.
  const ours = tableKnowledge(table);
  using again = recover(dump(table), systemHost);
  const strip = (knowledge: Map<string, Knowledge>) =>
    new Map(
      knowledge.entries().map(([name, value]) => [name, JSON.stringify(value).replace(/"\d+ (\d+)"/g, "$1")]),
    );
  assert.deepEqual(strip(tableKnowledge(again)), strip(ours), `seed ${seed}, after a recovery`);
  table.removeAll();
}

for (let seed = 1; seed <= SEEDS; seed++) {
  Deno.test(`random requests keep the table consistent with itself, its shadow and its successor (seed ${seed})`, () =>
    withBalancedFds(() => simulate(seed)));
}
