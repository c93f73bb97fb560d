/** Standard output and error, written whole before the process goes on. */

const encoder = new TextEncoder();
/** For standard error, and not written yet. */
let soon = "";

/** Writes to standard output. Returns false where its reader is gone, as under `| head`. */
export function writeOut(text: string): boolean {
  return write(Deno.stdout, text);
}

/** Writes to standard error. Whether anybody reads it is no concern of the program's. */
export function writeError(text: string): void {
  const all = soon + text;
  soon = "";
  write(Deno.stderr, all);
}

/**
 * Writes to standard error when the code that runs now is through, in one with all else that it has to say: a server
 * that recovers a thousand channels would spend more time on writing than on most of its work. What is left when the
 * process exits is written then.
 */
export function writeErrorSoon(text: string): void {
  if (soon === "") queueMicrotask(writeLeft);
  soon += text;
}

function writeLeft(): void {
  if (soon !== "") writeError("");
}

addEventListener("unload", writeLeft);

function write(stream: { writeSync(bytes: Uint8Array): number }, text: string): boolean {
  const bytes = encoder.encode(text);
  try {
    for (let written = 0; written < bytes.length;) written += stream.writeSync(bytes.subarray(written));
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) return false;
    if (error instanceof Deno.errors.BadResource) return false;
    throw error;
  }
}

/** Columns of the terminal; null where the stream is none. */
export function terminalColumns(stream: { isTerminal(): boolean }): number | null {
  if (!stream.isTerminal()) return null;
  try {
    return Deno.consoleSize().columns || null;
  } catch {
    return null;
  }
}
