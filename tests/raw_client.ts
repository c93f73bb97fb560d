/** A client of a server that says exactly what a test wants it to. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { closeAll, type Fd } from "../ffi/fd.ts";
import { connectAbstract } from "../ffi/unix_socket.ts";
import type {
  CreatePublisherRequestSchema,
  CreateSubscriberRequestSchema,
  RequestSchema,
  Response,
} from "../proto/subspace_pb.ts";
import { responseCodec, sendRequest } from "../wire/client_link.ts";
import { Connection } from "../wire/connection.ts";

type RequestInit = NonNullable<MessageInitShape<typeof RequestSchema>["request"]>;

/** One connection to a server. Errors in responses are thrown. */
export class RawClient implements Disposable {
  readonly #connection: Connection;

  constructor(socket: string) {
    this.#connection = new Connection(connectAbstract(socket));
  }

  async ask(request: RequestInit, fd?: Fd): Promise<Response["response"]> {
    sendRequest(this.#connection, { request }, fd);
    const incoming = await this.#connection.receive(responseCodec);
    if (incoming === null) throw new Error(`the server hung up: ${this.#connection.failure?.message}`);
    closeAll(incoming.fds);
    const { response } = incoming.message;
    if (response.value !== undefined && "error" in response.value && response.value.error !== "") {
      throw new Error(response.value.error);
    }
    return response;
  }

  /** Creates a publisher and returns its id. */
  async publisher(
    channelName: string,
    options: MessageInitShape<typeof CreatePublisherRequestSchema> = {},
  ): Promise<number> {
    const defaults = { slotSize: 256, numSlots: 4, publisherId: -1, vchanId: -1, checksumSize: 4 };
    const value = { channelName, ...defaults, processId: BigInt(Deno.pid), ...options };
    const response = await this.ask({ case: "createPublisher", value });
    return response.case === "createPublisher" ? response.value.publisherId : -1;
  }

  /** Creates a subscriber and returns its id. */
  async subscriber(
    channelName: string,
    options: MessageInitShape<typeof CreateSubscriberRequestSchema> = {},
  ): Promise<number> {
    const defaults = { subscriberId: -1, vchanId: -1, maxActiveMessages: 1 };
    const value = { channelName, ...defaults, processId: BigInt(Deno.pid), ...options };
    const response = await this.ask({ case: "createSubscriber", value });
    return response.case === "createSubscriber" ? response.value.subscriberId : -1;
  }

  async remove(kind: "publisher" | "subscriber", channelName: string, id: number): Promise<void> {
    await this.ask(
      kind === "publisher"
        ? { case: "removePublisher", value: { channelName, publisherId: id } }
        : { case: "removeSubscriber", value: { channelName, subscriberId: id } },
    );
  }

  async sessionId(): Promise<bigint> {
    const response = await this.ask({ case: "init", value: {} });
    return response.case === "init" ? response.value.sessionId : 0n;
  }

  /** Registers a part of a split buffer. */
  async register(
    channelName: string,
    part: { sessionId: bigint; slotId: number; isPrefix: boolean },
    fd?: Fd,
  ) {
    const metadata = { channelName, fullSize: 256n, allocationSize: 4096n, ...part };
    await this.ask({ case: "registerClientBuffer", value: { metadata, hasFd: fd !== undefined } }, fd);
  }

  /** Takes a buffer's registrations back. There is no response. */
  unregister(channelName: string, sessionId: bigint): void {
    sendRequest(this.#connection, {
      request: { case: "unregisterClientBuffer", value: { channelName, sessionId } },
    });
  }

  [Symbol.dispose](): void {
    this.#connection.close();
  }
}
