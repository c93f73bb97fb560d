/** A system as Prometheus text: what monitors collect. */

import type { Health } from "./health.ts";
import type { Channel, CounterValue, Inspection, Programs, ShadowProgram } from "./model.ts";

/** What a metric is. Names and labels are kept as they are once they were released. */
interface Metric {
  readonly name: string;
  readonly type: "counter" | "gauge";
  readonly help: string;
  readonly samples: readonly Sample[];
}

interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Renders a system and its health. An inspection of null is that of a system of which nobody tells anything. */
export function renderMetrics(inspection: Inspection | null, health: Health): string {
  return metricsOf(inspection, health).filter(({ samples }) => samples.length > 0).map(text).join("");
}

function metricsOf(inspection: Inspection | null, { status, findings }: Health): Metric[] {
  const channels = inspection?.channels ?? [];
  const system: Metric[] = [
    gauge("subspace_up", "Whether somebody tells about the system.", [one(inspection === null ? 0 : 1)]),
    gauge(
      "subspace_health_status",
      "0 fine, 1 degraded, 2 down.",
      [one({ ok: 0, degraded: 1, down: 2 }[status])],
    ),
    gauge(
      "subspace_findings",
      "Things that need attention, by check.",
      [...Map.groupBy(findings, ({ check }) => check)].map(([check, all]) => ({
        labels: { check },
        value: all.length,
      })),
    ),
  ];
  if (inspection === null) return system;
  const server = inspection.session?.server;
  return [
    ...system,
    gauge(
      "subspace_server_up",
      "Whether the server's process exists.",
      server === null || server === undefined ? [] : [one(server.alive ? 1 : 0)],
    ),
    ...programMetrics(inspection.programs),
    gauge("subspace_channels", "Channels, virtual ones included.", [one(channels.length)]),
    each(channels, "counter", "messages_total", "Messages published.", ({ traffic }) => traffic?.messages),
    each(channels, "counter", "bytes_total", "Bytes published.", ({ traffic }) => traffic?.bytes),
    each(
      channels,
      "counter",
      "drops_total",
      "Messages that subscribers missed.",
      ({ traffic }) => traffic?.drops,
    ),
    each(channels, "gauge", "publishers", "Publishers.", ({ numPublishers }) => numPublishers),
    each(channels, "gauge", "subscribers", "Subscribers.", ({ numSubscribers }) => numSubscribers),
    each(channels, "gauge", "slots", "Slots.", ({ kind, numSlots }) => kind === "virtual" ? null : numSlots),
    {
      name: "subspace_channel_slots_by_state",
      type: "gauge",
      help: "Slots, by what they are doing.",
      samples: channels.flatMap(({ name, slots }) =>
        slots === null ? [] : ([
          ["free", slots.free],
          ["owned", slots.owned],
          ["held", slots.held],
          ["unread", slots.published],
          ["retired", slots.retired],
        ] as const).map(([state, value]) => ({ labels: { channel: name, state }, value }))
      ),
    },
  ];
}

const counterHelp: Readonly<Record<string, string>> = {
  connections: "Connections now.",
  connections_peak: "Most connections at any time.",
  connections_total: "Connections that were let in.",
  requests_total: "Requests, by kind.",
  pauses_total: "Times that a client had to take answers first.",
  orphans: "Users whose client has not come back yet.",
  orphans_reaped_total: "Users removed because their process had ended, or their time was up.",
  refusals_total: "What was refused, by reason.",
  queued_frames: "Frames that wait to be sent.",
  queued_frames_longest: "Frames that wait for the slowest peer.",
  queued_bytes: "Bytes that wait to be sent.",
  loop_stalls_total: "Times that the event loop was late.",
  loop_stalled_ms_total: "Milliseconds that it was late, all together.",
  loop_stall_worst_ms: "The worst of them.",
  fds: "Open file descriptors.",
  fds_max: "File descriptors that may be open.",
  dumps_sent_total: "State dumps sent.",
  events_total: "Events applied.",
  events_failed_total: "Events that made no sense.",
  full_syncs_total: "Times that a server sent everything, by reason.",
  resumes_total: "Times that a server went on where the shadow was.",
  held_fds: "File descriptors open only for readers.",
};

/** What server and shadows count, and how the shadows are. */
function programMetrics(programs: Programs | null): Metric[] {
  if (programs === null) return [];
  const { server, shadows } = programs;
  const each = (name: string, help: string, of: (shadow: ShadowProgram) => number | null) =>
    gauge(
      `subspace_shadow_${name}`,
      help,
      shadows.flatMap((shadow) => {
        const value = of(shadow);
        return value === null ? [] : [{ labels: { shadow: shadow.socket }, value }];
      }),
    );
  return [
    ...counterMetrics("server", server === null ? [] : [{ labels: {}, counters: server.counters }]),
    each("up", "Whether the shadow answers.", ({ kind }) => kind === "gone" ? 0 : 1),
    each(
      "in_step",
      "Whether its copy is whole and the newest.",
      ({ inStep }) => inStep === null ? null : Number(inStep),
    ),
    each("lag", "Changes that it has not got yet.", ({ lag }) => lag),
    ...counterMetrics(
      "shadow",
      shadows.map(({ socket, counters }) => ({ labels: { shadow: socket }, counters })),
    ),
  ];
}

function counterMetrics(
  kind: "server" | "shadow",
  programs: readonly { labels: Readonly<Record<string, string>>; counters: readonly CounterValue[] }[],
): Metric[] {
  const all = programs.flatMap(({ labels, counters }) => counters.map((it) => ({ labels, ...it })));
  return [...Map.groupBy(all, ({ name }) => name)].map(([name, counters]) => ({
    name: `subspace_${kind}_${name}`,
    type: name.endsWith("_total") ? "counter" : "gauge",
    help: counterHelp[name] ?? "See docs/extensions.md.",
    samples: counters.map(({ labels, label, of, value }) => ({
      labels: label === null ? labels : { ...labels, [label]: of ?? "" },
      value,
    })),
  }));
}

function one(value: number): Sample {
  return { labels: {}, value };
}

function gauge(name: string, help: string, samples: readonly Sample[]): Metric {
  return { name, type: "gauge", help, samples };
}

/** A metric with a sample for each channel that has one. */
function each(
  channels: readonly Channel[],
  type: Metric["type"],
  name: string,
  help: string,
  valueOf: (channel: Channel) => number | null | undefined,
): Metric {
  const samples = channels.flatMap((channel) => {
    const value = valueOf(channel);
    return value === null || value === undefined ? [] : [{ labels: { channel: channel.name }, value }];
  });
  return { name: `subspace_channel_${name}`, type, help, samples };
}

function text({ name, type, help, samples }: Metric): string {
  const lines = samples.map(({ labels, value }) => {
    const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`);
    return `${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${value}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
