/** The server and the shadows of a system: found from any of them, asked, and compared. */

import { Errno, SystemError } from "../ffi/errno.ts";
import type { ShadowLinkReport } from "../proto/subspace_pb.ts";
import { advantage, type Position } from "../wire/position.ts";
import { askServer, askShadow, counterValues, type ServerTold, type ShadowTold } from "./asking.ts";
import { lookBefore, type Sight } from "./sight.ts";
import { type Deadline, deadlineIn, explain, SilenceError } from "./link.ts";
import type { Programs, ServerProgram, ShadowProgram } from "./model.ts";

/** How a system's programs are looked for. */
export interface ProgramsOptions {
  /** How long all of it may take, in milliseconds. Default: 5000. */
  readonly timeoutMs?: number;
  /** Where a server may listen, if no shadow says. It counts only if it knows one of the shadows. Default: nowhere. */
  readonly serverSocket?: string;
  /** What one of the sockets has told already, or is telling. It is not disposed here. */
  readonly sight?: Sight | Promise<Sight>;
}

/** What one socket turned out to be. */
type Found =
  | { readonly kind: "shadow"; readonly socket: string; readonly told: ShadowTold }
  | { readonly kind: "reference"; readonly socket: string; readonly shadow: ShadowProgram }
  | { readonly kind: "server"; readonly socket: string; readonly told: ServerTold | null }
  | { readonly kind: "gone"; readonly socket: string; readonly problem: string };

/** Asks whoever listens on these sockets, their server, and its other shadows. Nobody's silence is an error. */
export async function programsOf(
  sockets: readonly string[],
  { timeoutMs = 5000, serverSocket = "", sight }: ProgramsOptions = {},
): Promise<Programs> {
  const deadline = deadlineIn(timeoutMs);
  const found = await Promise.all([...new Set(sockets)].map((socket) => find(socket, deadline, sight)));
  const { server, silent } = await serverOf(found, serverSocket, deadline);
  const links = server?.told.report.shadows ?? [];
  const others = links.map(({ socket }) => socket).filter((socket) =>
    !found.some((it) => it.socket === socket)
  );
  found.push(...await Promise.all(others.map((socket) => find(socket, deadline))));
  const shadows = found.flatMap((it) => it.kind === "server" ? [] : [shadowOf(it, links)]);
  return {
    server: server === null ? null : serverProgram(server),
    serverSilent: silent,
    shadows: compared(inOrderOf(links, shadows), server),
  };
}

async function find(
  socket: string,
  deadline: Deadline,
  sight?: Sight | Promise<Sight>,
): Promise<Found> {
  try {
    const told = await askShadow(socket, deadline);
    if (told !== null) return { kind: "shadow", socket, told };
    const known = await sight;
    if (known?.source.socket === socket) return await foundIn(known, deadline);
    using fresh = await lookBefore(deadline, socket);
    return await foundIn(fresh, deadline);
  } catch (error) {
    const reason = explain(error).replace(`cannot inspect ${socket}: `, "").split(";")[0];
    return { kind: "gone", socket, problem: reason };
  }
}

async function foundIn(sight: Sight, deadline: Deadline): Promise<Found> {
  const { socket, pid } = sight.source;
  if (sight.kind === "server") return { kind: "server", socket, told: await askServer(socket, deadline) };
  const { sessionId, scb, channels } = sight.dump;
  const shadow: ShadowProgram = {
    ...unknown(socket, "reference"),
    pid,
    sessionId: scb === null ? null : String(sessionId),
    numChannels: channels.size,
  };
  return { kind: "reference", socket, shadow };
}

interface KnownServer {
  readonly socket: string;
  readonly told: ServerTold;
}

/** The server that was asked, the one that a shadow names, or the one that may be it if it knows one of the shadows. */
async function serverOf(
  found: readonly Found[],
  maybe: string,
  deadline: Deadline,
): Promise<{ server: KnownServer | null; silent: boolean }> {
  for (const it of found) {
    if (it.kind === "server" && it.told !== null) {
      return { server: { socket: it.socket, told: it.told }, silent: false };
    }
  }
  const named = found.flatMap((it) => it.kind === "shadow" ? [it.told.report.serverSocket] : [])
    .filter((socket) => socket !== "");
  let silent = false;
  for (const socket of new Set([...named, maybe])) {
    if (socket === "") continue;
    const told = await askServer(socket, deadline).catch((error) => {
      silent ||= named.includes(socket) && isSilence(error);
      return null;
    });
    if (told === null) continue;
    const known = told.report.shadows.some((link) => found.some((it) => it.socket === link.socket));
    if (known) return { server: { socket, told }, silent: false };
  }
  return { server: null, silent };
}

/** Nothing was said in time, or so many wait for an answer already that nobody else may. */
function isSilence(error: unknown): boolean {
  return error instanceof SilenceError || error instanceof SystemError && error.errno === Errno.EAGAIN;
}

function serverProgram({ socket, told: { pid, report } }: KnownServer): ServerProgram {
  return {
    socket,
    pid,
    generation: report.generation === 0n ? null : String(report.generation),
    offset: Number(report.offset),
    counters: counterValues(report.counters),
  };
}

function unknown(socket: string, kind: ShadowProgram["kind"]): ShadowProgram {
  return {
    socket,
    label: null,
    kind,
    problem: null,
    pid: null,
    sessionId: null,
    numChannels: null,
    position: null,
    connected: null,
    lag: null,
    behind: null,
    inStep: null,
    lastFullSync: null,
    fullSyncs: null,
    partialSyncs: null,
    previous: null,
    counters: [],
  };
}

/** A shadow as it says, and as its server does. */
function shadowOf(
  found: Exclude<Found, { kind: "server" }>,
  links: readonly ShadowLinkReport[],
): ShadowProgram {
  const link = links.find(({ socket }) => socket === found.socket);
  const fromServer = link === undefined ? {} : {
    label: link.label,
    connected: link.connected,
    lastFullSync: link.lastFullSync || null,
    fullSyncs: Number(link.fullSyncs),
    partialSyncs: Number(link.partialSyncs),
    lag: link.connected ? Number(link.lag) : null,
    behind: link.connected ? "server" as const : null,
  };
  switch (found.kind) {
    case "gone":
      return { ...unknown(found.socket, "gone"), ...fromServer, problem: found.problem };
    case "reference":
      return { ...found.shadow, ...fromServer };
    case "shadow": {
      const { pid, sessionId, numChannels, position, report } = found.told;
      const { hasServer, lastFullSync, previousSessionId, previousChannels } = report;
      return {
        ...unknown(found.socket, "ours"),
        pid,
        sessionId: sessionId === 0n ? null : String(sessionId),
        numChannels,
        position: { ...position, generation: String(position.generation), offset: Number(position.offset) },
        connected: hasServer,
        lastFullSync: lastFullSync || null,
        ...fromServer,
        previous: previousSessionId === 0n
          ? null
          : { sessionId: String(previousSessionId), numChannels: previousChannels },
        counters: counterValues(report.counters),
      };
    }
  }
}

/** As the server prefers them, then those that it does not know. */
function inOrderOf(links: readonly ShadowLinkReport[], shadows: readonly ShadowProgram[]): ShadowProgram[] {
  const place = ({ socket }: ShadowProgram) => {
    const index = links.findIndex((link) => link.socket === socket);
    return index < 0 ? links.length : index;
  };
  return shadows.toSorted((a, b) => place(a) - place(b));
}

function positionOf({ position }: ShadowProgram): Position | null {
  return position === null
    ? null
    : { ...position, generation: BigInt(position.generation), offset: BigInt(position.offset) };
}

/** Says of each shadow how far it is behind the server, or where there is none behind the freshest of them. */
function compared(shadows: readonly ShadowProgram[], server: KnownServer | null): ShadowProgram[] {
  const report = server?.told.report;
  const positions = shadows.map(positionOf).filter((position) => position !== null);
  const freshest = positions.reduce<Position | null>(
    (best, it) => best === null || advantage(it, best) !== null ? it : best,
    null,
  );
  const mark = report === undefined || report.generation === 0n
    ? freshest
    : { generation: report.generation, offset: report.offset };
  const behind = mark === freshest ? "freshest" : "server";
  return shadows.map((shadow) => {
    if (shadow.kind === "gone") return { ...shadow, inStep: false };
    const position = positionOf(shadow);
    // Of the reference's, only its server knows.
    if (position === null || mark === null) {
      return { ...shadow, inStep: shadow.lag === null ? null : shadow.lag === 0 };
    }
    const same = position.complete && position.generation === mark.generation;
    // The server was asked later than the shadow: what happened in between is no lag.
    const lag = same
      ? Math.min(Math.max(0, Number(mark.offset - position.offset)), shadow.lag ?? Infinity)
      : null;
    return { ...shadow, lag, behind, inStep: lag === 0 };
  });
}
