/** What a shadow says about each event at level debug, in the reference's words (specification, section 8.4). */

import type { Logger } from "@logtape/logtape";
import type { ShadowEvent } from "../proto/subspace_pb.ts";

/** Logs an event that was applied. */
export function logEvent(log: Logger, { event }: ShadowEvent): void {
  if (!log.isEnabledFor("debug")) return;
  const properties = { ...event.value };
  switch (event.case) {
    case "init":
      return log.debug("Shadow: init session_id={sessionId}", properties);
    case "createChannel":
      return log.debug(
        "Shadow: create channel '{channelName}' id={channelId} slots={numSlots}/{slotSize}",
        properties,
      );
    case "removeChannel":
      return log.debug("Shadow: remove channel '{channelName}' id={channelId}", properties);
    case "addPublisher":
      return log.debug("Shadow: add publisher '{channelName}' pub_id={publisherId} reliable={isReliable}", {
        ...properties,
        isReliable: Number(event.value.isReliable),
      });
    case "removePublisher":
      return log.debug("Shadow: remove publisher '{channelName}' pub_id={publisherId}", properties);
    case "addSubscriber":
      return log.debug("Shadow: add subscriber '{channelName}' sub_id={subscriberId} reliable={isReliable}", {
        ...properties,
        isReliable: Number(event.value.isReliable),
      });
    case "removeSubscriber":
      return log.debug("Shadow: remove subscriber '{channelName}' sub_id={subscriberId}", properties);
    case "registerClientBuffer": {
      const metadata = event.value.metadata;
      return log.debug(
        "Shadow: register client buffer '{channelName}' session={sessionId} buffer={bufferIndex} slot={slotId} " +
          "prefix={isPrefix}",
        { ...metadata, isPrefix: Number(metadata?.isPrefix) },
      );
    }
  }
}
