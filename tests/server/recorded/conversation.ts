/** Conversations with a server: what clients say, as JSON, and what they are answered, made comparable. */

import { fromJson, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { closeAll, type Fd } from "../../../ffi/fd.ts";
import { createMemory } from "../../../ffi/memory_object.ts";
import { RequestSchema, type Response, ResponseSchema } from "../../../proto/subspace_pb.ts";
import { until } from "../../deployment.ts";
import { RawClient, type RequestInit } from "../raw_client.ts";

/** A client says something; or, without a request, leaves. */
export interface Step {
  readonly client: string;
  /** A `Request` in protobuf's JSON. `SESSION` stands for the server's session id. */
  readonly request?: JsonObject;
  /** The `Response`, in comparable form; absent where there is none. */
  response?: JsonValue;
}

export interface Conversation {
  readonly name: string;
  readonly steps: Step[];
}

/** Holds a conversation. Returns what was answered, step by step; undefined where a step has no answer. */
export async function converse(socket: string, steps: readonly Step[]): Promise<(JsonValue | undefined)[]> {
  const clients = new Map<string, RawClient>();
  using observer = new RawClient(socket);
  const hello = await observer.request("init", { case: "init", value: { clientName: "observer" } });
  const session = hello.sessionId.toString();
  const answers: (JsonValue | undefined)[] = [];
  try {
    for (const { client: name, request } of steps) {
      if (request === undefined) {
        clients.get(name)?.close();
        clients.delete(name);
        await until(`${name} is gone`, () => isGone(observer, name));
        answers.push(undefined);
        continue;
      }
      if (!clients.has(name)) clients.set(name, await RawClient.connect(socket, name));
      answers.push(await say(clients.get(name)!, request, session));
    }
  } finally {
    for (const client of clients.values()) client.close();
  }
  return answers;
}

async function say(client: RawClient, json: JsonObject, session: string): Promise<JsonValue | undefined> {
  const text = JSON.stringify(json).replaceAll('"SESSION"', JSON.stringify(session));
  const { request } = fromJson(RequestSchema, JSON.parse(text));
  using fd: Fd | null = request.case === "registerClientBuffer" && request.value.hasFd
    ? createMemory("part", 64)
    : null;
  client.send(request as RequestInit, fd ?? undefined);
  if (request.case === "unregisterClientBuffer") return undefined;
  const response = await client.receive();
  const numFds = client.fds.length;
  closeAll(client.fds);
  return comparable(response, numFds, session);
}

async function isGone(observer: RawClient, name: string): Promise<boolean> {
  const { channels } = await observer.getChannelInfo();
  return channels.every(({ participants }) => participants.every(({ programName }) => programName !== name));
}

/** What every server says the same: without ids of sessions and users, and without orders that mean nothing. */
function comparable(response: Response["response"], numFds: number, session: string): JsonValue {
  const json = toJson(ResponseSchema, { $typeName: "subspace.Response", response }, {
    alwaysEmitImplicit: true,
  }) as Record<string, Record<string, JsonValue>>;
  const [kind, value] = Object.entries(json)[0];
  // What only ours says, and only to those who say what they have.
  if (value.unchanged === false) delete value.unchanged;
  for (const [field, entry] of Object.entries(value)) {
    if (!Array.isArray(entry)) continue;
    if (field.endsWith("FdIndexes")) value[field] = entry.length;
    // What only ours says, and only to those who ask for it.
    else if (field.endsWith("Sleepers") && entry.length === 0) delete value[field];
  }
  if (kind === "init") value.userId = value.groupId = 0;
  if (Array.isArray(value.channels)) value.channels = channelsOf(value.channels as JsonObject[]);
  if (Array.isArray(value.metadata)) value.metadata = sorted(value.metadata, (part) => JSON.stringify(part));
  if (kind === "getClientBuffers" && Array.isArray(value.fdIndexes)) value.fdIndexes = value.fdIndexes.length;
  return JSON.parse(JSON.stringify({ [kind]: value, numFds }).replaceAll(`"${session}"`, '"SESSION"'));
}

/** Without the server's own channels, whose publishers are processes. */
function channelsOf(channels: JsonObject[]): JsonValue[] {
  const others = channels.filter((channel) =>
    !String(channel.name ?? channel.channelName).startsWith("/subspace/")
  );
  for (const channel of others) {
    if (Array.isArray(channel.participants)) {
      channel.participants = sorted(channel.participants, (user) => JSON.stringify((user as JsonObject).id));
    }
  }
  return sorted(
    others,
    (channel) => String((channel as JsonObject).name ?? (channel as JsonObject).channelName),
  );
}

function sorted(values: readonly JsonValue[], key: (value: JsonValue) => string): JsonValue[] {
  return [...values].sort((a, b) => key(a) < key(b) ? -1 : 1);
}
