/** Virtual channels: which may be asked for, and what those of a multiplexer are called. */

import { Limit } from "../shm/layout.ts";
import { openAnswer } from "./answer.ts";
import { type Control, quietly } from "./control.ts";

/**
 * Names of virtual channels by their numbers, which are all that messages carry.
 *
 * The server is asked when somebody wants a name that is not known, and again after users have come or gone: a
 * number may be another channel's then.
 */
export class VirtualChannelNames {
  readonly #control: Control;
  readonly #names = new Map<number, string>();
  #asking = false;

  /**
   * @param channel The subscriber's channel.
   * @param virtual Whether that is a virtual channel itself, the only one that the subscriber reads.
   */
  constructor(control: Control, readonly channel: string, readonly virtual: boolean) {
    this.#control = control;
  }

  /** The name of the channel of a message; null as long as it is not known. */
  nameOf(vchanId: number): string | null {
    if (this.virtual || vchanId === -1) return this.channel;
    const name = this.#names.get(vchanId);
    if (name === undefined) this.#ask();
    return name ?? null;
  }

  /** Users have come or gone. */
  expire(): void {
    if (this.#names.size === 0) return;
    this.#names.clear();
    this.#ask();
  }

  #ask(): void {
    if (this.#asking) return;
    const request = { request: { case: "getChannelInfo" as const, value: { channelName: "" } } };
    this.#asking = this.#control.refresh(request, (answer) => {
      this.#asking = false;
      if (answer === null) return;
      quietly(() =>
        openAnswer(
          answer,
          "getChannelInfo",
          `learn the virtual channels of ${this.channel}`,
          ({ channels }) => {
            for (const { mux, vchanId, name } of channels) {
              if (mux === this.channel) this.#names.set(vchanId, name);
            }
          },
        )
      );
    });
  }
}

/** Throws a `RangeError` where a virtual channel's number is none, or stands without a multiplexer. */
export function checkVchanId(channel: string, options: { mux?: string; vchanId?: number }): void {
  const { mux, vchanId = -1 } = options;
  if (vchanId === -1) return;
  if (mux === undefined) {
    throw new RangeError(
      `Cannot use virtual channel ${vchanId} for ${channel}: name its multiplexer, with \`mux\``,
    );
  }
  if (Number.isInteger(vchanId) && vchanId >= 0 && vchanId < Limit.virtualChannels) return;
  throw new RangeError(
    `Cannot use virtual channel ${vchanId} for ${channel}: its number must be 0 to ${
      Limit.virtualChannels - 1
    }`,
  );
}
