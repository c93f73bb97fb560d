/** `subspace-inspect metrics`: Prometheus text, once or whenever it is asked for. */

import { healthOf, unreachable } from "../../inspect/health.ts";
import { inspect } from "../../inspect/inspect.ts";
import { InspectError } from "../../inspect/link.ts";
import { renderMetrics } from "../../inspect/metrics.ts";
import { SCHEMA_VERSION } from "../../inspect/model.ts";
import { ExitCode } from "../exit_codes.ts";
import { FlagError } from "../flags.ts";
import { writeError, writeOut } from "../output.ts";
import { stopSignal } from "../stopping.ts";
import { FileError } from "./files.ts";
import type { InspectFlags } from "./flags.ts";

const CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Prints metrics, or serves them until it is stopped. */
export async function runMetrics(flags: InspectFlags): Promise<number> {
  if (flags.listen !== "") return await serve(flags, addressOf(flags.listen));
  const inspection = await inspect(flags.socket, { timeoutMs: flags.timeout });
  const text = renderMetrics(inspection, healthOf(inspection));
  writeOut(flags.json ? JSON.stringify({ schemaVersion: SCHEMA_VERSION, text }, null, 2) + "\n" : text);
  return ExitCode.ok;
}

interface Address {
  readonly hostname: string;
  readonly port: number;
}

/** `HOST:PORT`, `[::1]:PORT`, `:PORT` for this machine only. */
function addressOf(listen: string): Address {
  const match = /^(?:\[([\da-f:]+)\]|([^:]*)):(\d{1,5})$/i.exec(listen);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new FlagError(
      `ERROR: Illegal value '${listen}' specified for flag 'listen'; expected HOST:PORT or :PORT`,
    );
  }
  return { hostname: match[1] ?? (match[2] || "127.0.0.1"), port };
}

async function serve({ socket, timeout }: InspectFlags, address: Address): Promise<number> {
  const server = listen(address, async ({ url, method }) => {
    if (new URL(url).pathname !== "/metrics") return new Response("See /metrics\n", { status: 404 });
    if (method !== "GET" && method !== "HEAD") return new Response("Only GET\n", { status: 405 });
    return new Response(await metricsNow(socket, timeout), { headers: { "content-type": CONTENT_TYPE } });
  });
  await stopSignal();
  await server.shutdown();
  return ExitCode.ok;
}

/** A monitor wants to be told that nobody answers, instead of getting no answer itself. */
async function metricsNow(socket: string, timeoutMs: number): Promise<string> {
  try {
    const inspection = await inspect(socket, { timeoutMs });
    return renderMetrics(inspection, healthOf(inspection));
  } catch (error) {
    if (!(error instanceof InspectError)) throw error;
    return renderMetrics(null, unreachable(error.message));
  }
}

function listen(address: Address, handler: (request: Request) => Promise<Response>): Deno.HttpServer {
  const { hostname, port } = address;
  try {
    return Deno.serve({
      hostname,
      port,
      onListen: ({ port }) => writeError(`Metrics are on http://${hostname}:${port}/metrics\n`),
    }, handler);
  } catch (error) {
    const reason = error instanceof Deno.errors.NotCapable
      ? `this program was started without --allow-net; give it --allow-net=${hostname}:${port}`
      : error instanceof Deno.errors.AddrInUse
      ? "somebody listens there already"
      : error instanceof Error
      ? error.message
      : String(error);
    throw new FileError(`Cannot listen on ${hostname}:${port}: ${reason}`);
  }
}
