/** A client that says exactly what a test tells it to, over a real socket, to any server. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { closeAll, type Fd } from "../../ffi/fd.ts";
import { connectAbstract } from "../../ffi/unix_socket.ts";
import {
  type CreatePublisherRequestSchema,
  type CreatePublisherResponse,
  type CreateSubscriberRequestSchema,
  type CreateSubscriberResponse,
  RequestSchema,
  type Response,
} from "../../proto/subspace_pb.ts";
import { responseCodec, sendRequest } from "../../wire/client_link.ts";
import { Connection } from "../../wire/connection.ts";
import { PATIENCE_MS } from "../program.ts";

export type RequestInit = NonNullable<MessageInitShape<typeof RequestSchema>["request"]>;
type ResponseCase = Response["response"]["case"];
type ResponseValue<Case extends ResponseCase> = Extract<Response["response"], { case: Case }>["value"];

export class RawClient implements Disposable {
  readonly connection: Connection;
  /** Of the last response. Closed with the next one, and with the client. */
  fds: Fd[] = [];

  constructor(socket: string) {
    this.connection = new Connection(connectAbstract(socket));
  }

  /** Connects and says hello. */
  static async connect(socket: string, name = "raw", clientToken = 0n): Promise<RawClient> {
    const client = new RawClient(socket);
    await client.request("init", { case: "init", value: { clientName: name, clientToken } });
    return client;
  }

  /** Sends a request, without waiting. */
  send(request: RequestInit, fd?: Fd): void {
    sendRequest(this.connection, create(RequestSchema, { request }), fd);
  }

  /** Receives the next response, and keeps its fds. */
  async receive(): Promise<Response["response"]> {
    const timer = setTimeout(() => this.connection.close(new Error("it does not answer")), PATIENCE_MS);
    const incoming = await this.connection.receive(responseCodec);
    clearTimeout(timer);
    if (incoming === null) {
      throw new Error(`the server closed the connection: ${this.connection.failure?.message ?? "in order"}`);
    }
    closeAll(this.fds);
    this.fds = incoming.fds;
    return incoming.message.response;
  }

  /** Sends a request and receives its response, which must be of a kind. */
  async request<Case extends NonNullable<ResponseCase>>(
    kind: Case,
    request: RequestInit,
    fd?: Fd,
  ): Promise<ResponseValue<Case>> {
    this.send(request, fd);
    const response = await this.receive();
    if (response.case !== kind) throw new Error(`the server answered ${response.case}, not ${kind}`);
    return response.value as ResponseValue<Case>;
  }

  /** Asks for a publisher: 4 slots of 64 bytes, local, new, unless told otherwise. */
  createPublisher(
    channelName: string,
    traits: MessageInitShape<typeof CreatePublisherRequestSchema> = {},
  ): Promise<CreatePublisherResponse> {
    const value = {
      channelName,
      slotSize: 64,
      numSlots: 4,
      isLocal: true,
      publisherId: -1,
      vchanId: -1,
      processId: BigInt(Deno.pid),
      ...traits,
    };
    return this.request("createPublisher", { case: "createPublisher", value });
  }

  /** Asks for a subscriber that holds one message at most, new, unless told otherwise. */
  createSubscriber(
    channelName: string,
    traits: MessageInitShape<typeof CreateSubscriberRequestSchema> = {},
  ): Promise<CreateSubscriberResponse> {
    const value = {
      channelName,
      maxActiveMessages: 1,
      subscriberId: -1,
      vchanId: -1,
      processId: BigInt(Deno.pid),
      ...traits,
    };
    return this.request("createSubscriber", { case: "createSubscriber", value });
  }

  removePublisher(channelName: string, publisherId: number, requestToken = 0n) {
    const value = { channelName, publisherId, requestToken };
    return this.request("removePublisher", { case: "removePublisher", value });
  }

  removeSubscriber(channelName: string, subscriberId: number, requestToken = 0n) {
    const value = { channelName, subscriberId, requestToken };
    return this.request("removeSubscriber", { case: "removeSubscriber", value });
  }

  getTriggers(channelName: string) {
    return this.request("getTriggers", { case: "getTriggers", value: { channelName } });
  }

  getChannelInfo(channelName = "") {
    return this.request("getChannelInfo", { case: "getChannelInfo", value: { channelName } });
  }

  getChannelStats(channelName = "") {
    return this.request("getChannelStats", { case: "getChannelStats", value: { channelName } });
  }

  getClientBuffers(channelName: string, sessionId: bigint, bufferIndex = 0) {
    const value = { channelName, sessionId, bufferIndex };
    return this.request("getClientBuffers", { case: "getClientBuffers", value });
  }

  close(): void {
    closeAll(this.fds);
    this.connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
