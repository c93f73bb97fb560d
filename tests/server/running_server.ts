/** A server in this process, with what tests look at. */

import { libc } from "../../ffi/libc.ts";
import { openNamed } from "../../ffi/memory_object.ts";
import type { Channel } from "../../server/channel.ts";
import type { ChannelTable } from "../../server/channel_table.ts";
import { Server, type ServerOptions } from "../../server/server.ts";
import type { ShadowEventInit } from "../../wire/shadow_link.ts";
import { withBalancedFds } from "../open_fds.ts";
import { uniqueSocket } from "../program.ts";
import { RawClient } from "./raw_client.ts";

/** What a test gets: a server of its own, and clients as many as it likes. */
export interface Stage {
  readonly socket: string;
  readonly server: Server;
  connect(name?: string): Promise<RawClient>;
}

/** A test with a server. Afterwards all fds are closed, and nothing of the session is left in /dev/shm. */
export function test(
  name: string,
  run: (stage: Stage) => Promise<void>,
  options: Omit<ServerOptions, "socket"> = {},
): void {
  Deno.test(name, () => withBalancedFds(() => withServer(run, options)));
}

async function withServer(
  run: (stage: Stage) => Promise<void>,
  options: Omit<ServerOptions, "socket">,
): Promise<void> {
  const socket = uniqueSocket("server");
  const server = await Server.start({ socket, ...options });
  const clients: RawClient[] = [];
  try {
    await run({
      socket,
      server,
      connect: async (name) => {
        const client = await RawClient.connect(socket, name);
        clients.push(client);
        return client;
      },
    });
  } finally {
    for (const client of clients) client.close();
    await server.stop();
  }
}

/** An event, in short: `add_publisher /c 0`. */
export type EventText = string;

/** Writes down the events that a table reports from now on. */
export function recordEvents(table: ChannelTable): EventText[] {
  const events: EventText[] = [];
  const { effects } = table;
  table.effects = {
    replicate: (event, fds) => {
      events.push(eventText(event));
      effects.replicate(event, fds);
    },
    directoryChanged: () => effects.directoryChanged(),
  };
  return events;
}

function eventText({ event }: ShadowEventInit): EventText {
  const value = (event?.value ?? {}) as Record<string, unknown>;
  const name = event!.case!.replace(/[A-Z]/g, (letter) => "_" + letter.toLowerCase());
  const id = value.publisherId ?? value.subscriberId ?? value.channelId ?? "";
  return `${name} ${value.channelName} ${id}`.trim();
}

/** The channel of a name, which must exist. */
export function channelOf(server: Server, name: string): Channel {
  const channel = server.table.find(name);
  if (channel === undefined) throw new Error(`there is no channel ${name}`);
  return channel;
}

/** Whether `/dev/shm/NAME` exists. */
export function sharedMemoryExists(name: string): boolean {
  using fd = openNamed(name, { writable: false });
  return fd !== null;
}

/** Reads an eventfd's counter down. Returns whether it was above 0. */
export function wasTriggered(fdNumber: number): boolean {
  return libc.read(fdNumber, new Uint8Array(8), 8) === 8;
}

/** Whether a process id belongs to nobody. */
export const DEAD_PID = 0x3fff_ffffn;
