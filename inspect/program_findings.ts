/** What is wrong with a system's programs, by what they say of themselves. */

import { valueOf } from "./counters.ts";
import type { HealthFinding } from "./health.ts";
import type { CounterValue, Programs, ShadowProgram } from "./model.ts";
import { formatAge, formatNumberOf } from "./units.ts";

/** A stall that clients notice. */
const STALL_MS = 1000;
/** Of the fds that a program may open: what is left is for a burst, not for growth. */
const FDS_SHARE = 0.9;

/** Judges a system's programs. */
export function programFindings({ server, serverSilent, shadows }: Programs): HealthFinding[] {
  const programs = [
    ...(server === null ? [] : [{ name: `server ${server.socket}`, counters: server.counters }]),
    ...shadows.map(({ socket, counters }) => ({ name: `shadow ${socket}`, counters })),
  ];
  return [
    ...(serverSilent ? [silence] : []),
    ...shadows.filter(({ inStep }) => inStep === false).map(shadowFinding),
    ...programs.flatMap(({ name, counters }) => counterFindings(name, counters)),
  ];
}

/** Messages go on, but nobody can come or go. */
const silence: HealthFinding = {
  severity: "down",
  check: "server",
  channel: null,
  text: "the server answers nobody",
  advice:
    "see with ps whether it is stopped (T) or busy; kill -CONT it, or kill -KILL it and start it again: it goes on where it was",
};

function shadowFinding({ socket, kind, problem, lag, position }: ShadowProgram): HealthFinding {
  const common = { severity: "degraded", check: "shadow", channel: null } as const;
  if (kind === "gone") {
    return {
      ...common,
      text: `the shadow ${socket} is gone (${problem})`,
      advice: "start subspace-shadow with that --socket: the server sends it everything",
    };
  }
  const how = position?.complete === false
    ? "has no complete copy"
    : lag === null
    ? "has the copy of another server"
    : `lags by ${formatNumberOf(lag, "change")}`;
  return {
    ...common,
    text: `the shadow ${socket} ${how}`,
    advice:
      "look again with shadows in a second; if it stays, see in the server's log why, and restart the shadow",
  };
}

function counterFindings(name: string, counters: readonly CounterValue[]): HealthFinding[] {
  const found: HealthFinding[] = [];
  const refusals = counters.filter((it) => it.name === "refusals_total");
  if (refusals.length > 0) {
    found.push({
      severity: "note",
      check: "refusals",
      channel: null,
      text: `the ${name} refused ${
        refusals.map(({ of, value }) => `${value} (${of})`).join(", ")
      } since it began`,
      advice: "its log says whom, and docs/faq.md what to do",
    });
  }
  const worst = valueOf(counters, "loop_stall_worst_ms");
  if (worst >= STALL_MS) {
    found.push({
      severity: "note",
      check: "stalls",
      channel: null,
      text: `the ${name} once answered nobody for ${formatAge(worst)}`,
      advice: "see with watch whether the machine is too busy, or give the program a core",
    });
  }
  const fds = valueOf(counters, "fds"), most = valueOf(counters, "fds_max");
  if (most > 0 && fds >= FDS_SHARE * most) {
    found.push({
      severity: "degraded",
      check: "fds",
      channel: null,
      text: `the ${name} has ${fds} of ${most} fds open`,
      advice: "raise LimitNOFILE= (or ulimit -n), or see with users who has so many",
    });
  }
  return found;
}
