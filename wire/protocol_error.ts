/** What a peer may do wrong. */

import type { RefusalReason } from "./refusals.ts";

/** The peer broke the protocol, or a limit. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";

  /** @param reason What it counts as. */
  constructor(message: string, readonly reason: RefusalReason = "protocol") {
    super(message);
  }
}

/** The stream ended inside a message: the peer died while it sent, or does not know the protocol. */
export class CutOffError extends ProtocolError {}
