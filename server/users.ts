/** Who uses a channel: its publishers and subscribers, the clients that they belong to, and what they add up to. */

import type { Fd } from "../ffi/fd.ts";
import {
  publisherFds,
  type PublisherRecord,
  subscriberFds,
  type SubscriberRecord,
} from "../wire/state_dump.ts";
import type { Channel } from "./channel.ts";

/** A connected client. It dies with its connection, and its users with it. */
export class Client {
  /** As the client said in `Init`; shown to people, believed by nobody. */
  name = "";
  /** As it said in `Init`, the same on all its connections; 0 where it said none. */
  token = 0n;
  /** When its process started: see `processOf`. */
  processStart: bigint | undefined;
  readonly users = new Set<User>();

  /**
   * @param pid Its process as the kernel sees it; 0 where it lives in a pid namespace that this process cannot see.
   * @param isServer Whether it is the server itself, which goes on with what the last one had.
   */
  constructor(readonly pid: number, readonly isServer = false) {}
}

/** What publishers and subscribers have in common. */
interface Member {
  /** Unique over the physical channel. */
  readonly id: number;
  readonly channel: Channel;
  /** null while it is an orphan: recovered, and its client has not come back yet. */
  client: Client | null;
  /** Its process as the client said, to be shown. `record.info.processId` is 0 where that cannot be relied on. */
  claimedPid: bigint;
}

export interface Publisher extends Member {
  readonly kind: "publisher";
  record: PublisherRecord;
}

export interface Subscriber extends Member {
  readonly kind: "subscriber";
  record: SubscriberRecord;
  /** Of the queue that it has got; 0 for none. */
  queueCapacity: number;
}

export type User = Publisher | Subscriber;

/**
 * An orphan that was created by a request with this token: the server died before it could say so, and the client asks
 * again.
 */
export function findGranted<Kind extends User>(users: Iterable<Kind>, requestToken: bigint): Kind | null {
  if (requestToken === 0n) return null;
  for (const user of users) {
    if (user.client === null && user.record.info.requestToken === requestToken) return user;
  }
  return null;
}

/** Whether a request with this token may mean a user: its id may have been another's when the request was made. */
export function mayBeMeant({ record: { info } }: User, requestToken: bigint): boolean {
  return requestToken === 0n || info.requestToken === 0n || requestToken === info.requestToken;
}

/** What a client says of a user that it has already. */
export interface Mapped {
  readonly requestToken: bigint;
  readonly mappedInode: bigint;
  readonly mappedDevice: bigint;
}

/**
 * Whether a client has of a user what it would be sent: the same memory, and the eventfds, which are made once a user.
 */
export function isUnchanged(user: User, { requestToken, mappedInode, mappedDevice }: Mapped): boolean {
  if (mappedInode === 0n || requestToken === 0n || user.record.info.requestToken !== requestToken) {
    return false;
  }
  const { inode, device } = user.channel.physical.blocks.file;
  return inode === mappedInode && device === mappedDevice;
}

/** All fds of a user. */
export function userFds(user: User): Fd[] {
  return user.kind === "publisher" ? publisherFds(user.record) : subscriberFds(user.record);
}

/** What the users of a physical channel add up to: those of all virtual channels of a multiplexer together. */
export class Census {
  publishers = 0;
  subscribers = 0;
  bridgePublishers = 0;
  bridgeSubscribers = 0;
  tunnelPublishers = 0;
  tunnelSubscribers = 0;
  /** Slots that publishers may hold at once. */
  slotLeases = 0;
  /** Messages that subscribers may hold at once. */
  activeMessages = 0;

  add(user: User): void {
    this.#count(user, 1);
  }

  remove(user: User): void {
    this.#count(user, -1);
  }

  #count(user: User, by: 1 | -1): void {
    const { isBridge, forTunnel } = user.record.info;
    if (user.kind === "publisher") {
      this.publishers += by;
      if (isBridge) this.bridgePublishers += by;
      if (forTunnel) this.tunnelPublishers += by;
      this.slotLeases += by * user.record.info.maxOutstandingSlotLeases;
    } else {
      this.subscribers += by;
      if (isBridge) this.bridgeSubscribers += by;
      if (forTunnel) this.tunnelSubscribers += by;
      this.activeMessages += by * user.record.info.maxActiveMessages;
    }
  }
}
