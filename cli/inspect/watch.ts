/** `subspace-inspect watch`: what happens a second, redrawn in place. */

import { renderWatch, Watcher, type WatchOrder, type WatchSample } from "../../inspect/watch.ts";
import { ExitCode } from "../exit_codes.ts";
import { writeOut } from "../output.ts";
import { stopSignal } from "../stopping.ts";
import type { InspectFlags } from "./flags.ts";
import { Pause } from "./pause.ts";
import { screen } from "./screen.ts";

const FOOTER = "q quit   sort by: n name  m messages  b bytes  d drops  t total";
const orders: Readonly<Record<string, WatchOrder>> = {
  n: "name",
  m: "messages",
  b: "bytes",
  d: "drops",
  t: "total",
};

/** Of a terminal that does not say how many it has. */
const ROWS = 24;

/** The alternate screen, without a cursor; and back. */
const ENTER = "\x1b[?1049h\x1b[?25l";
const LEAVE = "\x1b[?25h\x1b[?1049l";
const HOME = "\x1b[H";
const CLEAR_REST_OF_LINE = "\x1b[K";
const CLEAR_BELOW = "\x1b[J";

/** Shows rates until `q` is pressed or it is stopped. Where nobody looks at a terminal, one sample after the other. */
export async function runWatch(flags: InspectFlags): Promise<number> {
  using watcher = new Watcher(flags.socket, flags.timeout);
  const first = await watcher.sample();
  const live = !flags.json && Deno.stdout.isTerminal();
  const view: View = { order: flags.sort, sample: first };
  using keyboard = live ? new Keyboard() : null;
  if (keyboard !== null) {
    keyboard.onKey = (key) => {
      if (Object.hasOwn(orders, key)) view.order = orders[key];
      draw(view);
    };
  }
  using _screen = live ? new AlternateScreen() : null;
  await samples(watcher, flags, view, live, keyboard);
  return ExitCode.ok;
}

interface View {
  order: WatchOrder;
  sample: WatchSample;
}

async function samples(
  watcher: Watcher,
  { interval, count, json }: InspectFlags,
  view: View,
  live: boolean,
  keyboard: Keyboard | null,
): Promise<void> {
  const ends: Promise<unknown>[] = [stopSignal()];
  if (keyboard !== null) ends.push(keyboard.quit, hangup());
  const pause = new Pause(Promise.race(ends));
  for (let shown = 1;; shown++) {
    if (!(live ? draw(view) : writeOut(textOf(view, json)))) return;
    if (shown === count) return;
    await pause.wait(interval);
    if (pause.over) return;
    view.sample = await watcher.sample();
  }
}

/** The terminal is being closed, or whoever sends SIGHUP says so: then it is left as it was. */
function hangup(): Promise<void> {
  return new Promise((resolve) => Deno.addSignalListener("SIGHUP", resolve));
}

function textOf({ sample, order }: View, json: boolean): string {
  if (json) return JSON.stringify(sample) + "\n";
  return renderWatch(sample, { ...screen(), order, height: Infinity, footer: "" }) + "\n";
}

/** Returns false where the terminal is gone. */
function draw({ sample, order }: View): boolean {
  // Not every terminal says how high it is.
  const height = Deno.consoleSize().rows || ROWS;
  const text = renderWatch(sample, { ...screen(), order, height, footer: FOOTER });
  const lines = text.trimEnd().split("\n").slice(0, height);
  return writeOut(HOME + lines.map((line) => line + CLEAR_REST_OF_LINE).join("\r\n") + CLEAR_BELOW);
}

/** The terminal's other screen, as long as this lives; it is left however the process ends, unless it is killed. */
class AlternateScreen implements Disposable {
  readonly #leave = () => void writeOut(LEAVE);

  constructor() {
    addEventListener("unload", this.#leave);
    writeOut(ENTER);
  }

  [Symbol.dispose](): void {
    removeEventListener("unload", this.#leave);
    this.#leave();
  }
}

/** Keys as they are pressed, as long as this lives. Without a terminal there are none. */
class Keyboard implements Disposable {
  readonly #quit = Promise.withResolvers<void>();
  readonly #raw = Deno.stdin.isTerminal();
  readonly #restore = () => Deno.stdin.setRaw(false);
  #closed = false;
  onKey: (key: string) => void = () => {};

  constructor() {
    if (!this.#raw) return;
    addEventListener("unload", this.#restore);
    Deno.stdin.setRaw(true);
    this.#read();
  }

  /** `q` or Ctrl-C was pressed. */
  get quit(): Promise<void> {
    return this.#quit.promise;
  }

  async #read(): Promise<void> {
    const bytes = new Uint8Array(16);
    while (!this.#closed) {
      const count = await Deno.stdin.read(bytes);
      if (count === null) return;
      for (const key of new TextDecoder().decode(bytes.subarray(0, count))) {
        if (key === "q" || key === "\x03") this.#quit.resolve();
        else this.onKey(key);
      }
    }
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    if (!this.#raw) return;
    removeEventListener("unload", this.#restore);
    this.#restore();
  }
}
