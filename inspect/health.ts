/** Whether a system works, what is wrong, and what to do about it. */

import { type Channel, type Finding, type Inspection, SCHEMA_VERSION, type Source } from "./model.ts";
import { programFindings } from "./program_findings.ts";
import type { ReportOptions } from "./report.ts";
import { printable, sentenceLines } from "./table.ts";
import { formatNumberOf } from "./units.ts";

/** How bad something is. A `note` is worth knowing, and nothing to act upon at once. */
export type Severity = "down" | "degraded" | "note";

/** Something that is wrong, and what to do. */
export interface HealthFinding {
  readonly severity: Severity;
  /** Which check found it: for scripts. */
  readonly check:
    | "server"
    | "unreachable"
    | "damage"
    | "dead-process"
    | "mismatch"
    | "drops"
    | "full"
    | "unheard"
    | "shadow"
    | "refusals"
    | "stalls"
    | "fds";
  readonly channel: string | null;
  readonly text: string;
  readonly advice: string;
}

/** The health of a system. */
export interface Health {
  readonly schemaVersion: typeof SCHEMA_VERSION;
  readonly status: "ok" | "degraded" | "down";
  /** null where nobody answers. */
  readonly source: Source | null;
  /** The worst first. */
  readonly findings: readonly HealthFinding[];
}

const order: readonly Severity[] = ["down", "degraded", "note"];

const advice: Record<Finding["kind"], Pick<HealthFinding, "severity" | "check" | "advice">> = {
  damage: {
    severity: "degraded",
    check: "damage",
    advice: "stop all users of the channel, so that the server makes it anew when they are back",
  },
  dead: {
    severity: "degraded",
    check: "dead-process",
    advice: "start it again; a server that runs reclaims what it held",
  },
  mismatch: {
    severity: "degraded",
    check: "mismatch",
    advice: "look again in a second; if it stays, restart the shadow, and then the server",
  },
  drops: {
    severity: "note",
    check: "drops",
    advice: "counted since the channel was made: see with watch whether it goes on, and give it more slots",
  },
};

/** Judges a system. */
export function healthOf({ source, session, channels, findings, programs }: Inspection): Health {
  const serverDown = session?.server?.alive === false;
  const judged: HealthFinding[] = [
    ...serverFindings(session, serverDown),
    // That the server is gone has been said.
    ...findings.filter(({ kind, channel, text }) =>
      !(kind === "dead" && channel === null && text.startsWith("the server"))
    )
      .map(({ kind, channel, text }) => ({ ...advice[kind], channel, text })),
    ...channels.flatMap(channelFindings),
    ...programs === null ? [] : programFindings(programs),
  ];
  return health(source, judged);
}

/** The health of a system of which nobody could tell anything. */
export function unreachable(reason: string): Health {
  return health(null, [{
    severity: "down",
    check: "unreachable",
    channel: null,
    text: reason,
    advice: "see with ps whether server and shadow run, and start what does not",
  }]);
}

function health(source: Source | null, findings: readonly HealthFinding[]): Health {
  const sorted = findings.toSorted((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity));
  const worst = sorted[0]?.severity ?? "note";
  return {
    schemaVersion: SCHEMA_VERSION,
    status: worst === "note" ? "ok" : worst,
    source,
    findings: sorted,
  };
}

function serverFindings(session: Inspection["session"], down: boolean): HealthFinding[] {
  const common = { check: "server", channel: null } as const;
  if (session === null) {
    return [{
      ...common,
      severity: "down",
      text: "no server has connected since the shadow was started",
      advice: "start subspace-server with --shadow_socket naming this shadow",
    }];
  }
  if (!down) return [];
  return [{
    ...common,
    severity: "down",
    text: `the server (pid ${session.server?.pid}) is gone`,
    advice:
      "start subspace-server with --shadow_socket naming this shadow: it goes on where the other one died",
  }];
}

function channelFindings(channel: Channel): HealthFinding[] {
  const { name, kind, slots, numSlots, numPublishers, numSubscribers, subscribers } = channel;
  if (kind === "virtual" || numSlots === 0) return [];
  const found: HealthFinding[] = [];
  const held = (slots?.held ?? 0) + (slots?.owned ?? 0);
  if (numPublishers > 0 && held >= numSlots) {
    const holders = subscribers.filter(({ holds }) => (holds?.length ?? 0) > 0)
      .map(({ id, process }) => `subscriber ${id}${process === null ? "" : ` (pid ${process.pid})`}`);
    found.push({
      severity: "degraded",
      check: "full",
      channel: name,
      text: `all ${formatNumberOf(numSlots, "slot")} are in use` +
        (holders.length === 0 ? "" : `, held by ${holders.slice(0, 3).join(", ")}`),
      advice: "publishers wait: see with channel NAME who holds them, or give the channel more slots",
    });
  }
  if (numPublishers > 0 && numSubscribers === 0 && !name.startsWith("/subspace/") && kind === "channel") {
    found.push({
      severity: "note",
      check: "unheard",
      channel: name,
      text: `${formatNumberOf(numPublishers, "publisher")} and no subscriber`,
      advice: "start whoever is to read it, if anybody is",
    });
  }
  return found;
}

/** The longest severity, and a gap. */
const MARK_COLUMNS = 10;

/** Renders health: the verdict, and the findings, each with what to do. */
export function renderHealth(
  { status, source, findings }: Health,
  { width, style }: ReportOptions,
): string {
  const where = source === null ? "" : `  ${source.kind} ${printable(source.socket)} (pid ${source.pid})`;
  const emphasis = { ok: "heading", degraded: "warning", down: "alarm" } as const;
  const lines = findings.flatMap(({ severity, channel, text, advice }) => {
    const mark = style(
      severity.toUpperCase(),
      severity === "down" ? "alarm" : severity === "degraded" ? "warning" : "faint",
    );
    const sentence = `${printable(channel === null ? text : `${channel}: ${text}`)}; ${advice}`;
    const padding = " ".repeat(MARK_COLUMNS - severity.length);
    return sentenceLines(mark + padding + sentence, width, MARK_COLUMNS);
  });
  const head = sentenceLines(style(status.toUpperCase(), emphasis[status]) + where, width);
  return [...head, ...lines].join("\n") + "\n";
}
