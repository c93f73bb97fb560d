/** Many clients that ask a server for something all the time. */

import { until } from "../deployment.ts";
import { responseCodec } from "../../wire/client_link.ts";
import { RawClient } from "./raw_client.ts";

const CHANNELS = 16;

/** Requests that are sent one after the other by each client, without a moment in which none is on its way. */
export class Traffic implements AsyncDisposable {
  readonly #clients: RawClient[] = [];
  #running = 0;
  #stopping = false;
  /** Requests that were answered as they should be. */
  answered = 0;
  /** What went wrong, a line each. */
  readonly failures: string[] = [];

  static async start(socket: string, clients: number): Promise<Traffic> {
    const traffic = new Traffic();
    for (let i = 0; i < clients; i++) {
      const client = await RawClient.connect(socket, `traffic ${i}`);
      traffic.#clients.push(client);
      traffic.#running++;
      traffic.#run(client, `traffic/${i % CHANNELS}`)
        .catch((error) => traffic.failures.push(error.message))
        .finally(() => traffic.#running--);
    }
    return traffic;
  }

  /** A publisher and a subscriber come and go; questions are under way all the while, and answered in order. */
  async #run(client: RawClient, channelName: string): Promise<void> {
    const shape = { channelName, vchanId: -1, processId: BigInt(Deno.pid) };
    while (!this.#stopping) {
      client.send({
        case: "createPublisher",
        value: { ...shape, publisherId: -1, slotSize: 64, numSlots: 64 },
      });
      client.send({ case: "getChannelInfo", value: { channelName } });
      client.send({ case: "createSubscriber", value: { ...shape, subscriberId: -1, maxActiveMessages: 1 } });
      client.send({ case: "getTriggers", value: { channelName } });
      const publisher = await this.#expect(client, "createPublisher");
      await this.#expect(client, "getChannelInfo");
      const subscriber = await this.#expect(client, "createSubscriber");
      client.send({
        case: "removeSubscriber",
        value: { channelName, subscriberId: subscriber.subscriberId },
      });
      client.send({ case: "getChannelStats", value: { channelName } });
      client.send({ case: "removePublisher", value: { channelName, publisherId: publisher.publisherId } });
      await this.#expect(client, "getTriggers");
      await this.#expect(client, "removeSubscriber");
      await this.#expect(client, "getChannelStats");
      await this.#expect(client, "removePublisher");
    }
  }

  // deno-lint-ignore no-explicit-any
  async #expect(client: RawClient, kind: string): Promise<any> {
    const response = await client.receive();
    const { error } = response.value as { error: string };
    if (response.case === kind && error === "") this.answered++;
    else this.failures.push(`${response.case} instead of ${kind}: ${error}`);
    return response.value;
  }

  /** Lets each client come to the end of what it does. All that it made is gone then. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await until("each client has all its answers", () => this.#running === 0);
    for (const client of this.#clients) {
      if (client.connection.tryReceive(responseCodec) !== null) this.failures.push("an answer too many");
      client.close();
    }
  }

  /** Ends it in the middle: the server is gone. */
  async abandon(): Promise<void> {
    for (const client of this.#clients) client.close();
    await this.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
