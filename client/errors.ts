/** What can go wrong between a client and its server. */

/** The server said no. Its own words are in `reason`. */
export class RequestError extends Error {
  override readonly name = "RequestError";

  /**
   * @param what What could not be done, to what: `create a publisher on /imu`.
   * @param reason The server's text, unchanged.
   */
  constructor(what: string, readonly reason: string) {
    super(`Cannot ${what}: ${reason}`);
  }
}

/** The server did not answer in time; a late answer is undone. */
export class TimeoutError extends Error {
  override readonly name = "TimeoutError";
}

/** There is no server, or what was asked of it got lost with it. */
export class ConnectionError extends Error {
  override readonly name = "ConnectionError";
}

/** The checksum of a message is wrong: it was changed after it was published, or is made in another way. */
export class ChecksumError extends Error {
  override readonly name = "ChecksumError";

  constructor(readonly channel: string, readonly ordinal: number) {
    super(
      `Cannot read message ${ordinal} of ${channel}: its checksum is wrong. It was changed after it was published, ` +
        "or its publisher computes checksums in another way; the message was skipped",
    );
  }
}

/** A client, publisher or subscriber was used after it was closed. */
export class ClosedError extends Error {
  override readonly name = "ClosedError";
}
