/** A recorded system under some traffic, as the inspector's verbs see it. */

import type { WholeShadowSight } from "../../inspect/sight.ts";
import { closeDump } from "../../wire/state_dump.ts";
import { send } from "../shm/local_channel.ts";
import { RecordedShadow } from "./recorded_shadow.ts";

/** Three messages on a reliable channel, one of them held. */
export function withTraffic(): RecordedShadow {
  const shadow = new RecordedShadow();
  const holder = shadow.subscriber("/robot/odometry", 1, { reliable: true });
  const odometry = shadow.publisher("/robot/odometry", 0, { reliable: true });
  for (const text of ["one", "two", "three"]) send(odometry, text);
  holder.readNext();
  return shadow;
}

/** What a recorded shadow tells. */
export async function sightOf(shadow: RecordedShadow): Promise<WholeShadowSight> {
  const dump = { ...await shadow.dump(), sessionId: shadow.sessionId };
  return {
    kind: "shadow",
    source: { kind: "shadow", socket: "/shadow", pid: 4242 },
    dump,
    numChannels: dump.channels.size,
    failure: null,
    [Symbol.dispose]: () => closeDump(dump),
  };
}
