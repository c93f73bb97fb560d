/** Whether a channel has slots for one user more (specification, section 2.14). */

import type { PhysicalChannel } from "./physical_channel.ts";
import type { User } from "./users.ts";

/** What a user that comes would hold at once. */
export interface Newcomer {
  readonly activeMessages: number;
  readonly slotLeases: number;
}

/** Why a newcomer does not fit, in the reference's words; null if it does. A placeholder has room for everybody. */
export function capacityProblem(
  physical: PhysicalChannel | null,
  numSlots: number,
  newcomer: Newcomer,
): string | null {
  if (numSlots === 0) return null;
  const census = physical?.census;
  const leases = (census?.slotLeases ?? 0) + newcomer.slotLeases;
  const messages = (census?.activeMessages ?? 0) + newcomer.activeMessages;
  if (leases + messages <= numSlots - 1) return null;
  const publishers = count(census?.publishers ?? 0, "publisher");
  const subscribers = count(census?.subscribers ?? 0, "subscriber");
  return `INTERNAL: there are ${numSlots} slots with ${publishers} reserving ${
    count(leases, "slot lease")
  } and ` +
    `${subscribers} reserving ${count(messages, "active message")}; you need at least ${
      leases + messages + 1
    } slots` +
    `; publishers=[${list(physical, "publisher")}]; subscribers=[${list(physical, "subscriber")}]`;
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function list(physical: PhysicalChannel | null, kind: User["kind"]): string {
  if (physical === null) return "";
  const users = [...physical.users()].filter((user) => user.kind === kind).sort((a, b) => a.id - b.id);
  return users.map(describe).join(", ");
}

function describe(user: User): string {
  const holds = user.kind === "publisher"
    ? `max_outstanding_slot_leases=${user.record.info.maxOutstandingSlotLeases}`
    : `max_active_messages=${user.record.info.maxActiveMessages}`;
  return `{pid=${user.claimedPid}, client="${user.client?.name ?? "<disconnected>"}", ${holds}}`;
}
