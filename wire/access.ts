/** Who may connect, and to do what: rules for user and group ids as the kernel reports them. No I/O. */

/** Whoever connected. */
export interface Peer {
  /** 0 where the kernel does not say. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  /** Its other groups. Asked for only where some group is allowed. */
  supplementaryGroups(): readonly number[];
}

/** Who is let in beside root and the user that the program runs as. */
export interface AccessRules {
  /** Everybody. Default: false. */
  readonly anybody?: boolean;
  /** User ids. Default: none. */
  readonly users?: readonly number[];
  /** Group ids; the group may be the peer's own or a supplementary one. Default: none. */
  readonly groups?: readonly number[];
}

const ROOT = 0;

/** One right: to connect, to write. */
export class AccessPolicy {
  readonly #users: ReadonlySet<number>;
  readonly #groups: ReadonlySet<number>;
  readonly #anybody: boolean;

  /** @param ownUid The user that the program runs as, who always has the right. */
  constructor(ownUid: number, { anybody = false, users = [], groups = [] }: AccessRules = {}) {
    this.#anybody = anybody;
    this.#users = new Set([ROOT, ownUid, ...users]);
    this.#groups = new Set(groups);
  }

  /** Whether a peer has the right. */
  admits(peer: Peer): boolean {
    if (this.#anybody || this.#users.has(peer.uid)) return true;
    if (this.#groups.size === 0) return false;
    return this.#groups.has(peer.gid) || peer.supplementaryGroups().some((gid) => this.#groups.has(gid));
  }
}

/** A peer, for people: `uid 1000, gid 1000, pid 4242`. */
export function peerText({ uid, gid, pid }: Peer): string {
  return `uid ${uid}, gid ${gid}, pid ${pid === 0 ? "unknown" : pid}`;
}
