/** How far something is, on standard error where that is a terminal. */

import { terminalColumns, writeError } from "../output.ts";

const BAR_COLUMNS = 30;
const SHOW_EVERY_MS = 100;
const ERASE = "\r\x1b[K";

/** A line that is written over, and gone when it is done: what came of it is said then. */
export class Progress implements Disposable {
  readonly #shows = terminalColumns(Deno.stderr) !== null;
  #shownAt = -Infinity;
  #open = false;

  /** A bar, and what it stands for. */
  bar(done: number, total: number, text = `${done} of ${total}`): void {
    if (!this.#due(done >= total)) return;
    const filled = total === 0 ? BAR_COLUMNS : Math.min(BAR_COLUMNS, Math.round(BAR_COLUMNS * done / total));
    this.#write(`${"█".repeat(filled)}${"░".repeat(BAR_COLUMNS - filled)} ${text}`);
  }

  /** Something that has no known end. */
  line(text: () => string): void {
    if (this.#due(false)) this.#write(text());
  }

  #due(last: boolean): boolean {
    if (!this.#shows || (!last && performance.now() - this.#shownAt < SHOW_EVERY_MS)) return false;
    this.#shownAt = performance.now();
    return true;
  }

  #write(text: string): void {
    writeError(ERASE + text);
    this.#open = true;
  }

  [Symbol.dispose](): void {
    if (this.#open) writeError(ERASE);
    this.#open = false;
  }
}
