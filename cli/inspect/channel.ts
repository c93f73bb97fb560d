/** `subspace-inspect channel NAME`: one channel from near. */

import { monotonicNs } from "../../ffi/clock.ts";
import { type ChannelDetail, detailOf, lookAtChannel, renderChannel } from "../../inspect/channel_view.ts";
import { viewOf } from "../../inspect/inspect.ts";
import { look, type ShadowSight } from "../../inspect/sight.ts";
import { InspectError } from "../../inspect/link.ts";
import { SCHEMA_VERSION } from "../../inspect/model.ts";
import { nearest } from "../suggestion.ts";
import type { InspectFlags } from "./flags.ts";
import { codeOf } from "./inspect.ts";
import { show } from "./screen.ts";

/** Prints a channel, after two looks at it. */
export async function runChannel(flags: InspectFlags, [name]: readonly string[]): Promise<number> {
  using sight = await look(flags.socket, { timeoutMs: flags.timeout });
  const detail = sight.kind === "shadow"
    ? await twoLooks(sight, name, flags.interval)
    : told(viewOf(sight), name);
  show(detail, flags.json, renderChannel);
  return codeOf(detail.findings);
}

async function twoLooks(sight: ShadowSight, name: string, intervalMs: number): Promise<ChannelDetail> {
  const record = sight.dump.channels.get(name);
  if (record === undefined) throw missingChannel(name, sight);
  const before = lookAtChannel(record, monotonicNs);
  await new Promise((resolve) => setTimeout(resolve, intervalMs));
  return detailOf(sight, name, before, lookAtChannel(record, monotonicNs))!;
}

function told({ source, channels, findings }: ReturnType<typeof viewOf>, name: string): ChannelDetail {
  const channel = channels.find((it) => it.name === name);
  if (channel === undefined) throw unknownChannel(name, channels.map((it) => it.name), source.socket);
  return {
    schemaVersion: SCHEMA_VERSION,
    source,
    channel,
    rates: null,
    slotMap: null,
    findings: findings.filter((it) => it.channel === null || it.channel === name),
  };
}

/** Says that a shadow has no such channel, as far as it told. */
export function missingChannel(
  name: string,
  { dump, source: { socket }, failure }: ShadowSight,
): InspectError {
  if (failure === null) return unknownChannel(name, dump.channels.keys(), socket);
  return new InspectError(
    `Cannot show channel ${name}: the state of ${socket} broke off before it (${failure.message})`,
  );
}

/** Says that there is no such channel, and which one may be meant. */
export function unknownChannel(name: string, names: Iterable<string>, socket: string): InspectError {
  const candidate = nearest(name, [...names]);
  const hint = candidate === null ? "see them with the verb channels" : `did you mean ${candidate}?`;
  return new InspectError(`Cannot show channel ${name}: ${socket} knows none of that name; ${hint}`);
}
