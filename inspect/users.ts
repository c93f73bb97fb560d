/** The users of all channels, as one list. */

import { type Inspection, type Publisher, SCHEMA_VERSION, type Source, type Subscriber } from "./model.ts";

/** A publisher or subscriber, with its channel. */
export type ChannelUser =
  | { readonly channel: string; readonly role: "publisher" } & Publisher
  | { readonly channel: string; readonly role: "subscriber" } & Subscriber;

/** All users of a system. */
export interface Users {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly source: Source;
  /** By channel, as in an inspection; publishers first, by id. */
  readonly users: readonly ChannelUser[];
}

/** Lists the users of a system. */
export function usersOf({ source, channels }: Inspection): Users {
  const users = channels.flatMap(({ name, publishers, subscribers }): ChannelUser[] => [
    ...publishers.map((user) => ({ channel: name, role: "publisher" as const, ...user })),
    ...subscribers.map((user) => ({ channel: name, role: "subscriber" as const, ...user })),
  ]);
  return { schemaVersion: SCHEMA_VERSION, source, users };
}
