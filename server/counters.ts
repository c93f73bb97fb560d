/** What a server counts of its own work, to be shown. */

import { Refusals } from "../wire/refusals.ts";

/** Plain numbers: whoever shows them reads them. */
export class ServerCounters {
  /** Clients connected now, and the most at any time. */
  connections = 0;
  connectionsPeak = 0;
  /** Clients that were ever let in. */
  accepted = 0;
  /** Requests that were read, whatever the answer. */
  requests = 0;
  /** Times that a client had to take answers before its next request was read. */
  pauses = 0;
  readonly refusals = new Refusals();

  connected(): void {
    this.accepted++;
    this.connectionsPeak = Math.max(this.connectionsPeak, ++this.connections);
  }
}
