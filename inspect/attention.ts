/** What whoever is woken at night looks for: who is not heard, who drops messages, who holds the slots. */

import type { SlotReport } from "../shm/inspection.ts";
import { displayWidth, printable, type Style } from "./table.ts";
import { formatCount } from "./units.ts";

/** Who holds slots of a channel. */
export interface SlotHolders {
  readonly channel: string;
  /** Slots that subscribers hold. */
  readonly held: number;
  readonly numSlots: number;
  /** The one that holds most of them. */
  readonly subscriber: number;
  readonly pid: number | null;
}

/** What needs looking at. */
export interface Attention {
  /** Channels with publishers and without subscribers; not the server's own. */
  readonly unheard: readonly string[];
  /** Channels of which messages are being missed, the worst first. */
  readonly dropping: readonly string[];
  /** Channels of which subscribers hold half of the slots or more, the fullest first. */
  readonly holding: readonly SlotHolders[];
}

/** A channel, as far as it matters here. */
export interface Attended {
  readonly name: string;
  readonly mux: string | null;
  readonly numPublishers: number;
  readonly numSubscribers: number;
  readonly dropsPerSecond: number | null;
}

/** Collects what needs looking at. */
export function attentionOf(channels: readonly Attended[], holders: Iterable<SlotHolders>): Attention {
  const heard = new Set(channels.filter((it) => it.numSubscribers > 0).map(({ name }) => name));
  // Whoever subscribes to a multiplexer hears all of its virtual channels.
  const unheard = channels.filter(({ name, mux, numPublishers }) =>
    numPublishers > 0 && !heard.has(name) && !heard.has(mux ?? name) && !name.startsWith("/subspace/")
  );
  const dropping = channels.filter(({ dropsPerSecond }) => (dropsPerSecond ?? 0) > 0)
    .toSorted((a, b) => b.dropsPerSecond! - a.dropsPerSecond!);
  const share = ({ held, numSlots }: SlotHolders) => held / numSlots;
  return {
    unheard: unheard.map(({ name }) => name),
    dropping: dropping.map(({ name }) => name),
    holding: [...holders].filter((it) => share(it) >= 0.5).sort((a, b) => share(b) - share(a)),
  };
}

/** Who holds slots of a channel; null where no subscriber does. */
export function holdersOf(
  channel: string,
  slots: readonly SlotReport[],
  pidOf: (subscriber: number) => number | null,
): SlotHolders | null {
  const held = slots.filter(({ state }) => state === "held");
  const counts = new Map<number, number>();
  for (const id of held.flatMap(({ holders }) => holders)) counts.set(id, (counts.get(id) ?? 0) + 1);
  const [most] = [...counts].sort(([, a], [, b]) => b - a);
  if (most === undefined) return null;
  const [subscriber] = most;
  return { channel, held: held.length, numSlots: slots.length, subscriber, pid: pidOf(subscriber) };
}

/** A line for each kind of thing that needs looking at, with as many names as fit; none where all is well. */
export function attentionLines(
  { unheard, dropping, holding }: Attention,
  width: number,
  style: Style,
): string[] {
  const held = holding.map(({ channel, held, numSlots, subscriber, pid }) =>
    `${channel} ${held} of ${numSlots} by subscriber ${subscriber}${pid === null ? "" : ` (pid ${pid})`}`
  );
  return [
    ...line("DROPPING", dropping, "alarm"),
    ...line(
      "SLOTS HELD",
      held,
      holding.some(({ held, numSlots }) => held === numSlots) ? "alarm" : "warning",
    ),
    ...line("NO SUBSCRIBER", unheard, "warning"),
  ];

  function line(title: string, names: readonly string[], emphasis: "alarm" | "warning"): string[] {
    if (names.length === 0) return [];
    return [`${style(title, emphasis)}  ${listed(names, width - title.length - 2)}`];
  }
}

/** As many names as fit, and how many more there are; one at least. */
function listed(names: readonly string[], room: number): string {
  let text = printable(names[0]), shown = 1;
  for (; shown < names.length; shown++) {
    const longer = `${text}, ${printable(names[shown])}`;
    if (displayWidth(`${longer} and ${formatCount(names.length)} more`) > room) break;
    text = longer;
  }
  const more = names.length - shown;
  return more === 0 ? text : `${text} and ${formatCount(more)} more`;
}
