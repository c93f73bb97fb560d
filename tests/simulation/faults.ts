/** Faults to be planted in the code that is simulated: a simulator that finds none of them is of no use. */

import { duplicateAll, type Fd } from "../../ffi/fd.ts";
import type { System } from "../../ffi/system.ts";
import { ChannelTable } from "../../server/channel_table.ts";
import { IdPool } from "../../server/id_pool.ts";
import { Replicator } from "../../server/replicator.ts";
import { ShadowLink } from "../../server/shadow_link.ts";
import { Generations } from "../../shadow/generations.ts";

/** Something that is wrong on purpose. */
export interface Fault {
  readonly name: string;
  /** What a violation says that shows it. */
  readonly symptom: RegExp;
  /** Puts it in; returns how to take it out. */
  plant(): () => void;
}

/** Puts another method in the place of one. */
function replace<Target, Name extends keyof Target>(
  target: Target,
  name: Name,
  make: (original: Target[Name]) => Target[Name],
): () => void {
  const original = target[name];
  target[name] = make(original);
  return () => {
    target[name] = original;
  };
}

export const faults: readonly Fault[] = [
  {
    name: "an event that shadows are not told of",
    symptom: /^shadow.* has .*, the server |uses a .* that it has closed/,
    plant: () =>
      replace(Replicator.prototype, "replicate", (replicate) =>
        function (this: Replicator, event, fds) {
          if (event.event?.case !== "removeSubscriber") replicate.call(this, event, fds);
        }),
  },
  {
    name: "an init that drops the copy of before",
    symptom: /^lost |has lost its complete copy/,
    plant: () =>
      replace(
        Generations.prototype,
        "apply",
        (apply) =>
          function (this: Generations, message, fds, wentBack) {
            if (message.event.case === "init") this[Symbol.dispose]();
            apply.call(this, message, fds, wentBack);
          },
      ),
  },
  {
    name: "an id that is given out twice",
    symptom: /^id \d+ is used twice|^channel id \d+ is used twice|throws|both|are the same/,
    plant: () =>
      replace(IdPool.prototype, "allocate", (allocate) =>
        function (this: IdPool) {
          const id = allocate.call(this);
          if (id === null || id === 0) return id;
          this.release(id);
          return id - 1;
        }),
  },
  {
    name: "an fd that is closed though it is somebody else's",
    symptom: /uses a .* that it has closed/,
    plant: () =>
      replace(
        ShadowLink.prototype,
        "changed",
        (changed) =>
          function (this: ShadowLink, event, fds: readonly Fd[]) {
            changed.call(this, event, fds);
            fds[0]?.close();
          },
      ),
  },
  {
    name: "an fd that nobody closes",
    symptom: /descriptors open/,
    plant: () =>
      replace(ChannelTable.prototype, "remove", (remove) =>
        function (this: ChannelTable, user, asked) {
          user.record.trigger.duplicate();
          remove.call(this, user, asked);
        }),
  },
  {
    name: "an acknowledgement before shadows are told",
    symptom: /^lost /,
    plant: () =>
      replace(Replicator.prototype, "replicate", (replicate) =>
        function (this: Replicator, event, fds) {
          const { system } = this.shadows[0] as unknown as { system: System };
          const kept = duplicateAll(fds);
          system.after(0, () => {
            replicate.call(this, event, kept);
            for (const fd of kept) fd.close();
          });
        }),
  },
  {
    name: "a server that goes on at shadows that it was not recovered from",
    symptom: /^shadow.* has .*, the server |descriptors open|^lost /,
    plant: () =>
      replace(ShadowLink.prototype, "begin", (begin) =>
        function (this: ShadowLink, history, offer) {
          const agrees = offer !== null && offer.resumable && offer.position.complete;
          return begin.call(this, history, agrees ? { ...offer, agrees } : offer);
        }),
  },
  {
    name: "a shadow that is not looked for again",
    symptom: /is not connected at the end/,
    plant: () =>
      replace(ShadowLink.prototype, "open", (open) =>
        function (this: ShadowLink, quiet) {
          return quiet ? Promise.resolve(null) : open.call(this, quiet);
        }),
  },
];
