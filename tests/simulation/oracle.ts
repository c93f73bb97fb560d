/** What must hold in a simulated deployment: after each step, and when everything has come to rest. */

import type { ChannelTable } from "../../server/channel_table.ts";
import { advantage } from "../../wire/position.ts";
import { channelFds, type ChannelRecord, type StateDump } from "../../wire/state_dump.ts";
import type { Fd } from "../../ffi/fd.ts";
import type { ClientActor } from "./clients.ts";
import { ListenerFile, SocketFile, VirtualFd } from "./files.ts";
import type { Process } from "./process.ts";
import type { ShadowActor } from "./shadows.ts";
import type { World } from "./world.ts";

/** A server that lives and has not answered for so long waits for somebody. */
const ANSWER_MS_MAX = 2000;
/** The longest start: it asks its shadows, takes a state from one after the other, and sends it. */
const START_MS_MAX = 120_000;

/** After each step. */
export function checkAlways(world: World): void {
  const { server, machine } = world;
  if (server !== null) checkTable(server.table, (what) => machine.violated(what));
  checkIdsOfClients(world);
  for (const shadow of world.shadows) checkStaysComplete(shadow, (what) => machine.violated(what));
}

/** A shadow that has had a complete copy has one, and none that is older. */
function checkStaysComplete(shadow: ShadowActor, fail: (what: string) => void): void {
  if (!shadow.alive || shadow.inside === null) return;
  const { process, complete, inside: { position } } = shadow;
  if (position === null) return;
  if (complete !== null && !position.complete) fail(`${process.name} has lost its complete copy`);
  else if (complete !== null && advantage(complete, position) !== null) {
    fail(
      `${process.name} went back from ${complete.generation}/${complete.offset} to ` +
        `${position.generation}/${position.offset}`,
    );
  }
  if (position.complete) shadow.complete = position;
}

/** A table agrees with itself and with shared memory. */
export function checkTable(table: ChannelTable, fail: (what: string) => void): void {
  const ids = new Set<number>();
  for (const channel of table.channels()) {
    const { physical, name } = channel;
    if (channel.isEmpty) fail(`channel ${name} is empty`);
    if (channel.isVirtual) {
      if (physical.virtualChannels!.get(channel.vchanId) !== channel) {
        fail(`${name} is not on its multiplexer`);
      }
      continue;
    }
    if (ids.has(physical.id)) fail(`channel id ${physical.id} is used twice`);
    ids.add(physical.id);
    const { census, counters, userIds, blocks } = physical;
    const users = new Set<number>();
    let publishers = 0, subscribers = 0;
    for (const user of physical.users()) {
      if (users.has(user.id)) fail(`id ${user.id} is used twice on ${name}`);
      users.add(user.id);
      if (user.kind === "publisher") publishers++;
      else {
        subscribers++;
        if (!blocks.hasSubscriber(user.id)) fail(`nobody delivers to subscriber ${user.id} of ${name}`);
      }
      if (user.client !== null && !user.client.users.has(user)) fail(`a user of ${name} is in no client`);
    }
    if (userIds.size < users.size) fail(`ids of ${name} are free though they are used`);
    if (census.publishers !== publishers || census.subscribers !== subscribers) {
      fail(`the census of ${name} does not agree with its users`);
    }
    if (counters.numPubs !== publishers || counters.numSubs !== subscribers) {
      fail(
        `the counters of ${name} say ${counters.numPubs} and ${counters.numSubs}, not ${publishers} and ${subscribers}`,
      );
    }
  }
}

/** Requests are answered however the shadows and other clients are. */
export function checkNobodyWaits({ server, incarnation, machine, clients }: World): void {
  const { nowMs } = machine;
  if (incarnation !== null && incarnation.server === null) {
    const { process, failure } = incarnation;
    if (!process.runs || failure !== null) incarnation.startsSinceMs = nowMs;
    else if (nowMs - incarnation.startsSinceMs > START_MS_MAX) {
      machine.violated(`${process.name} does not start`);
    }
  }
  for (const { process, pending, attached } of clients) {
    for (const request of pending) {
      const excused = server === null || !attached || !process.runs || !incarnation!.process.runs;
      if (excused) request.sinceMs = nowMs;
      else if (nowMs - request.sinceMs > ANSWER_MS_MAX) {
        machine.violated(`${process.name} waits for an answer: ${request.what}`);
      }
    }
  }
}

/** No two that are attached have the same id in the same memory. */
function checkIdsOfClients(world: World): void {
  const { clients, machine } = world;
  const owners = new Map<string, string>();
  for (const client of clients) {
    if (!world.isServed(client)) continue;
    const { process, handles } = client;
    for (const handle of handles) {
      if (handle.removed) continue;
      const key = `memory ${handle.files[0]?.id}, id ${handle.id}`, other = owners.get(key);
      const owner = `the ${handle.title} of ${process.name}`;
      if (other !== undefined) {
        machine.violated(`${other} and ${owner} are the same: ${key}`);
      }
      owners.set(key, owner);
    }
  }
}

/** When all links are quiet. */
export function checkAtRest(world: World): void {
  const { server, machine, incarnation } = world;
  if (server === null) {
    return machine.violated(`no server serves at the end: ${incarnation?.failure ?? "it does not start"}`);
  }
  const records = new Map(Array.from(server.table.records(), (record) => [record.info.channelName, record]));
  const fail = (what: string) => machine.violated(what);
  const clients = world.clients.filter(({ process }) => process.alive);
  for (const client of clients) checkClient(world, client, records, fail);
  checkOwners(world, fail);
  world.shadows.forEach((shadow, i) => {
    if (shadow.inside!.position?.complete === false && !world.traits.oldServer) {
      fail(`${shadow.process.name} takes its state for incomplete`);
    }
    if (!server.shadows[i].connected) return fail(`${shadow.process.name} is not connected at the end`);
    // Such a server does not say it: a shadow waits for a sign that a server has sent everything.
    if (world.traits.oldServer && shadow.inside!.filling) return;
    checkCopy(shadow, { sessionId: server.sessionId, scb: server.table.scb, channels: records }, fail);
    checkShadowFds(shadow, fail);
  });
  checkServerFds(world, records.values(), fail);
  for (const process of machine.processes) {
    for (const { file } of process.fds) {
      if (file instanceof SocketFile && file.inbox.length > 0) {
        fail(`${process.name} has not read all it was sent`);
      }
    }
  }
}

/** What a client has is what the server knows, down to the eventfd. */
function checkClient(
  { machine, server }: World,
  client: ClientActor,
  records: ReadonlyMap<string, ChannelRecord>,
  fail: (what: string) => void,
): void {
  const { process, handles, pending } = client;
  if (!client.attached) return fail(`${process.name} is not attached at the end`);
  for (const { what } of pending) fail(`${process.name} still waits: ${what}`);
  for (const handle of handles) {
    if (handle.removed) continue;
    const record = records.get(handle.channel);
    const [ccb, bcb, trigger, poll] = handle.files;
    const user = handle.wish.kind === "publisher"
      ? record?.publishers.get(handle.id)
      : record?.subscribers.get(handle.id);
    if (user === undefined) {
      fail(`the server does not know the ${handle.title} with id ${handle.id} of ${process.name}`);
      continue;
    }
    if (fileOf(user.trigger) !== trigger || fileOf(user.poll) !== poll) {
      fail(`the ${handle.title} with id ${handle.id} of ${process.name} is woken by another eventfd`);
    }
    const remapped = handle.wish.kind === "subscriber";
    if (!remapped && (fileOf(record!.ccb) !== ccb || fileOf(record!.bcb) !== bcb)) {
      fail(`the ${handle.title} with id ${handle.id} of ${process.name} uses other memory than the server`);
    }
  }
  const held = [...handles].reduce((sum, handle) => sum + handle.numFds, client.numOtherFds);
  checkNumber(process, held, fail);
  if (machine.traced) machine.trace(`${process.name} has ${handles.size} handles at ${server!.numClients}`);
}

/** Whoever is in the table is somebody's who lives. */
function checkOwners({ server, clients }: World, fail: (what: string) => void): void {
  for (const channel of server!.table.channels()) {
    for (const user of channel.users()) {
      const { processId, clientToken } = user.record.info;
      const owner = clients.find(({ process }) => BigInt(process.pid) === processId);
      if (owner === undefined || !owner.process.alive) {
        fail(
          `${user.kind} ${user.id} of ${channel.name} is still there, and its process ${processId} is dead`,
        );
      } else if (user.client === null) {
        // Without a token nobody can know that the client was never told of it, as the server died before it answered.
        if (clientToken !== 0n) fail(`nobody has claimed ${user.kind} ${user.id} of ${channel.name}`);
      } else if (
        ![...owner.handles].some(({ channel: name, id }) => name === channel.name && id === user.id)
      ) {
        fail(`${user.kind} ${user.id} of ${channel.name} is nothing that ${owner.process.name} has`);
      }
    }
  }
}

/** A shadow has the server's state, all of it. */
function checkCopy({ process, inside }: ShadowActor, dump: StateDump, fail: (what: string) => void): void {
  const theirs = describe(inside!.state), ours = describe(dump);
  for (const name of new Set([...theirs.keys(), ...ours.keys()])) {
    if (theirs.get(name) === ours.get(name)) continue;
    fail(`${process.name} has ${theirs.get(name)} of ${name}, the server ${ours.get(name)}`);
  }
}

function checkShadowFds({ process, inside }: ShadowActor, fail: (what: string) => void): void {
  const { state, previous, connections, doors } = inside!;
  const fds = new Set<Fd>();
  for (const { scb, channels } of previous === null ? [state] : [state, previous]) {
    if (scb !== null) fds.add(scb);
    for (const channel of channels.values()) for (const fd of channelFds(channel)) fds.add(fd);
  }
  checkNumber(process, fds.size + connections + doors, fail);
}

/** By name, what a dump says of channels, as text. */
function describe({ sessionId, scb, channels }: StateDump): Map<string, string> {
  const texts = new Map([["(session)", `${sessionId} ${fileOf(scb)?.id}`]]);
  for (const [name, { info, ccb, bcb, publishers, subscribers, clientBuffers }] of channels) {
    const lines = [
      `${info.channelId} ${info.numSlots} ${info.mux} ${info.vchanId} ${fileOf(ccb)?.id} ${fileOf(bcb)?.id}`,
    ];
    for (const [id, { info, trigger, poll, retirement }] of publishers) {
      const files = [poll, trigger, retirement?.read, retirement?.write].map((fd) => fileOf(fd)?.id);
      lines.push(`publisher ${id} ${info.processId} ${info.isReliable} ${files}`);
    }
    for (const [id, { info, trigger, poll }] of subscribers) {
      const files = [poll, trigger].map((fd) => fileOf(fd)?.id);
      lines.push(`subscriber ${id} ${info.processId} ${info.isReliable} ${files}`);
    }
    for (const [key, { fd }] of clientBuffers) lines.push(`buffer ${key} ${fileOf(fd)?.id}`);
    texts.set(name, lines.sort().join("; "));
  }
  return texts;
}

function checkServerFds(world: World, records: Iterable<ChannelRecord>, fail: (what: string) => void): void {
  const { server, incarnation } = world;
  const fds = new Set<Fd>([server!.table.scb]);
  for (const record of records) for (const fd of channelFds(record)) fds.add(fd);
  const links = server!.shadows.filter(({ connected }) => connected).length;
  checkNumber(incarnation!.process, fds.size + 1 + server!.numClients + links, fail);
}

/** Nothing is leaked, and nothing closed that is still needed. */
function checkNumber(process: Process, expected: number, fail: (what: string) => void): void {
  if (process.fds.size === expected) return;
  const kinds = Map.groupBy([...process.fds].map(({ file }) => file), (file) => file.kind);
  const counts = [...kinds].map(([kind, files]) => `${files.length} ${kind}`).join(", ");
  fail(`${process.name} has ${process.fds.size} descriptors open (${counts}), and ${expected} in use`);
}

function fileOf(fd: Fd | null | undefined) {
  return fd instanceof VirtualFd && !fd.closed ? fd.file : undefined;
}

/** Whether nothing is on its way. */
export function isQuiet({ machine }: World): boolean {
  return machine.processes.every(({ fds }) =>
    [...fds].every(({ file }) =>
      file instanceof SocketFile
        ? file.inbox.length === 0
        : !(file instanceof ListenerFile) || file.waiting.length === 0
    )
  );
}
