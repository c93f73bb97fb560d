/** What the demo publishes: this machine's telemetry, one channel for each file that it samples. */

/** A channel of the demo. */
export interface Source {
  readonly channel: string;
  /** The file whose text each message carries. */
  readonly file: string;
  readonly reliable: boolean;
  /** Computes what a person wants to know from two samples, the older first, `seconds` apart. */
  describe(before: string, now: string, seconds: number): string;
}

/** Samples a second. */
export const SAMPLE_HZ = 1000;

/**
 * Slots of an unreliable channel: a second and more of samples. A subscriber that the machine does not let run for
 * so long would miss messages, which is what unreliable channels are for.
 */
export const UNRELIABLE_SLOTS = 2048;

/** Slots of a reliable channel. When they are full the publisher waits. */
export const RELIABLE_SLOTS = 64;

/** Bytes in front of a sample: its sequence number, from 0, as a little-endian u64. */
export const SEQUENCE_BYTES = 8;

const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);

function cpuTimes(stat: string): { busy: number; total: number } {
  const times = stat.slice(0, stat.indexOf("\n")).trim().split(/\s+/).slice(1, 9).map(Number);
  const total = sum(times);
  return { busy: total - times[3] - times[4], total };
}

function memoryField(meminfo: string, name: string): number {
  return Number(meminfo.match(new RegExp(`${name}:\\s+(\\d+) kB`))?.[1] ?? 0) / 2 ** 20;
}

function networkBytes(dev: string): number {
  return sum(
    dev.split("\n").slice(2).filter(Boolean).map((line) => {
      const fields = line.slice(line.indexOf(":") + 1).trim().split(/\s+/).map(Number);
      return fields[0] + fields[8];
    }),
  );
}

/** All channels of the demo. */
export const sources: readonly Source[] = [
  {
    channel: "telemetry/stat",
    file: "/proc/stat",
    reliable: true,
    describe(before, now) {
      const [a, b] = [cpuTimes(before), cpuTimes(now)];
      const load = b.total > a.total ? (b.busy - a.busy) / (b.total - a.total) : 0;
      return `CPU load ${(100 * load).toFixed(0)} %`;
    },
  },
  {
    channel: "telemetry/meminfo",
    file: "/proc/meminfo",
    reliable: false,
    describe(_, now) {
      const total = memoryField(now, "MemTotal");
      return `memory ${(total - memoryField(now, "MemAvailable")).toFixed(1)} of ${total.toFixed(1)} GiB`;
    },
  },
  {
    channel: "telemetry/net",
    file: "/proc/net/dev",
    reliable: false,
    describe(before, now, seconds) {
      const rate = (networkBytes(now) - networkBytes(before)) / Math.max(seconds, 1e-3);
      return `network ${(rate / 1024).toFixed(1)} KiB/s`;
    },
  },
];

/** Bytes of a slot: room for each of the files. */
export const SLOT_BYTES = 8192;

/** What a client of the demo tells the demo, one JSON object a line on its standard output. */
export interface Report {
  readonly ready?: boolean;
  /** The link to the server was lost, or is back. */
  readonly connection?: "lost" | "attached";
  /** Messages that the publisher sent on each channel. */
  readonly sent?: number;
  readonly received?: number;
  readonly lost?: number;
  /** What the subscriber computed from its messages. */
  readonly reading?: string;
}

/** Tells the demo. */
export function say(report: Report): void {
  console.log(JSON.stringify(report));
}
