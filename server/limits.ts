/** How much clients may ask of a server. */

/** Bounds; each refusal beyond one is counted with its reason. */
export interface ServerLimits {
  /** Clients connected at a time. One more is turned away. Default: 2048. */
  readonly connectionsMax: number;
  /** Answers that a client has not taken yet before its next request has to wait. Default: 64. */
  readonly requestsInFlightMax: number;
  /** Longest request, in bytes. Default: 1 MiB. */
  readonly frameBytesMax: number;
}

export const defaultServerLimits: ServerLimits = {
  connectionsMax: 2048,
  requestsInFlightMax: 64,
  frameBytesMax: 1024 * 1024,
};
