/** What a shadow counts of its own work, to be shown. */

import { Refusals } from "../wire/refusals.ts";

/** Plain numbers: whoever shows them reads them. */
export class ShadowCounters {
  /** Servers and readers that were ever let in. */
  accepted = 0;
  /** State dumps that were sent to the end. */
  dumpsSent = 0;
  /** Events that were applied, and those that made no sense. */
  events = 0;
  eventsFailed = 0;
  readonly refusals = new Refusals();
}
