/** A system as Prometheus text: what monitors collect. */

import type { Health } from "./health.ts";
import type { Channel, Inspection } from "./model.ts";

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
