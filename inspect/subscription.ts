/**
 * Following a channel as its unreliable subscriber: where only a server is there to ask, which hands out no memory to
 * whoever only looks. It holds one message at a time, for as long as copying it takes, and nobody waits for it; but it
 * takes an id and a place among the subscribers, and publishers signal it.
 */

import { Client } from "../client/client.ts";
import type { Message } from "../client/message.ts";
import type { Subscriber } from "../client/subscriber.ts";
import type { MessageSource, ObservedMessage } from "./observer.ts";

/** Messages of one look: the rest waits for the next. */
const MESSAGES_MAX = 4096;

/** A channel that is subscribed to. */
export class ChannelSubscription implements MessageSource {
  private constructor(private readonly client: Client, private readonly subscriber: Subscriber) {}

  /** Subscribes to a channel that is known to exist, for one that does not would be made. */
  static async open(server: string, channel: string): Promise<ChannelSubscription> {
    const client = await Client.connect({ socket: server, name: "subspace-inspect" });
    try {
      return new ChannelSubscription(
        client,
        await client.createSubscriber(channel, { passActivation: true }),
      );
    } catch (error) {
      client[Symbol.dispose]();
      throw error;
    }
  }

  get missed(): number {
    return this.subscriber.drops;
  }

  poll(withPayload: boolean): ObservedMessage[] {
    const messages: ObservedMessage[] = [];
    while (messages.length < MESSAGES_MAX) {
      using message = this.subscriber.read();
      if (message === null) break;
      messages.push(copyOf(message, withPayload));
    }
    return messages;
  }

  [Symbol.dispose](): void {
    this.client[Symbol.dispose]();
  }
}

function copyOf(message: Message, withPayload: boolean): ObservedMessage {
  return {
    ordinal: message.ordinal,
    timestampNs: Number(message.timestampNs),
    bytes: message.data.length,
    payload: withPayload ? message.data.slice() : null,
    metadata: withPayload ? message.metadata.slice() : new Uint8Array(),
    activation: message.isActivation,
  };
}
