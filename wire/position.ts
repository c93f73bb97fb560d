/** How far a shadow's copy of a server's state goes, and which of two copies is to be preferred. */

/** The place of a copy in the history of all servers that wrote to it. */
export interface Position {
  /**
   * The run of a server, by the monotonic clock when it began: later ones have higher numbers. Where the server does
   * not say (the reference's), the time at which the shadow heard of it. 0 is unknown.
   */
  readonly generation: bigint;
  /** Of the last event in it, within its generation. */
  readonly offset: bigint;
  /** Whether all that the server had is in it. */
  readonly complete: boolean;
}

/** Of a shadow that has nothing, or does not say. */
export const NOWHERE: Position = { generation: 0n, offset: 0n, complete: false };

export function samePosition(a: Position, b: Position): boolean {
  return a.generation === b.generation && a.offset === b.offset && a.complete === b.complete;
}

/** What one position has over another; null where it has nothing. */
export function advantage(a: Position, b: Position): "complete" | "newer generation" | "more events" | null {
  if (a.complete !== b.complete) return a.complete ? "complete" : null;
  if (a.generation !== b.generation) return a.generation > b.generation ? "newer generation" : null;
  return a.offset > b.offset ? "more events" : null;
}

/** The socket on which a shadow of ours says what its position is, and sends its state only when asked. */
export function replicationSocket(socket: string): string {
  return `${socket}.replication`;
}

/** The socket on which a shadow of ours gives what it had before the newest generation. */
export function previousSocket(socket: string): string {
  return `${socket}.previous`;
}
