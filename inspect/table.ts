/** Columns that line up, whatever the text: as wide as needed, shortened where the terminal ends. */

/** How a text stands out on a terminal. */
export type Emphasis = "heading" | "alarm" | "warning" | "faint";

/** Makes a text stand out, or leaves it as it is. */
export type Style = (text: string, emphasis: Emphasis) => string;

/** For files and pipes. */
export const plainStyle: Style = (text) => text;

const codes: Record<Emphasis, string> = { heading: "1", alarm: "31;1", warning: "33", faint: "2" };

/** For terminals. */
export const colourStyle: Style = (text, emphasis) => `\x1b[${codes[emphasis]}m${text}\x1b[0m`;

/** A column. */
export interface Column {
  readonly title: string;
  readonly align?: "right";
  /** May be shortened down to so many columns of the terminal. The first such column is the last to be. */
  readonly minimum?: number;
}

/** A text, or one that stands out. */
export type Cell = string | { readonly text: string; readonly emphasis: Emphasis };

const GAP = "  ";
const ELLIPSIS = "…";

/**
 * Renders a table, a line a row.
 *
 * @param width Columns of the terminal; Infinity for none.
 */
export function renderTable(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  width: number,
  style: Style,
): string[] {
  const head = columns.map(({ title }) => ({
    text: title,
    width: title.length,
    emphasis: "heading" as const,
  }));
  const laidOut = rows.map((row) => row.map(measured));
  const widths = columns.map(({ title }, i) => {
    const widest = laidOut.reduce((most, row) => Math.max(most, widthOf(row[i])), 0);
    return widest === 0 && rows.length > 0 ? 0 : Math.max(title.length, widest);
  });
  shrink(columns, widths, width);
  const shown = [...columns.keys()].filter((i) => widths[i] > 0);
  return [head, ...laidOut].map((row) =>
    shown.map((i) => fit(row[i], widths[i], columns[i].align === "right", style)).join(GAP).trimEnd()
  );
}

/** A cell as it is shown, and how wide that is; a text alone where it is as wide as it is long. */
type MeasuredCell = string | {
  readonly text: string;
  readonly width: number;
  readonly emphasis: Emphasis | null;
};

function measured(cell: Cell): MeasuredCell {
  if (typeof cell !== "string") return { ...cell, ...measuredText(cell.text) };
  return PLAIN.test(cell) ? cell : { ...measuredText(cell), emphasis: null };
}

function measuredText(text: string): { text: string; width: number } {
  const shown = printable(text);
  return { text: shown, width: displayWidth(shown) };
}

function widthOf(cell: MeasuredCell): number {
  return typeof cell === "string" ? cell.length : cell.width;
}

function shrink(columns: readonly Column[], widths: number[], width: number): void {
  const gaps = GAP.length * (widths.filter((it) => it > 0).length - 1);
  let excess = widths.reduce((sum, it) => sum + it, gaps) - width;
  for (let i = columns.length - 1; i >= 0 && excess > 0; i--) {
    const { minimum } = columns[i];
    if (minimum === undefined) continue;
    const less = Math.min(excess, Math.max(0, widths[i] - minimum));
    widths[i] -= less;
    excess -= less;
  }
}

function fit(cell: MeasuredCell, width: number, alignRight: boolean, style: Style): string {
  if (typeof cell === "string" && cell.length <= width) {
    return alignRight ? cell.padStart(width) : cell.padEnd(width);
  }
  const { text: whole, emphasis } = typeof cell === "string" ? { text: cell, emphasis: null } : cell;
  const fits = widthOf(cell) <= width, text = fits ? whole : shorten(whole, width);
  const padding = " ".repeat(width - (fits ? widthOf(cell) : displayWidth(text)));
  const styled = emphasis === null || text === "" ? text : style(text, emphasis);
  return alignRight ? padding + styled : styled + padding;
}

/** Keeps the beginning and the end: names often differ only there. */
function shorten(text: string, width: number): string {
  const characters = [...text];
  let room = width - ELLIPSIS.length;
  let head = "", tail = "";
  for (let i = 0, j = characters.length - 1; i <= j;) {
    const fromHead = displayWidth(head) <= displayWidth(tail) + width / 4;
    const next = fromHead ? characters[i++] : characters[j--];
    room -= displayWidth(next);
    if (room < 0) break;
    if (fromHead) head += next;
    else tail = next + tail;
  }
  return head + ELLIPSIS + tail;
}

/** Names come from anybody: whatever would move the cursor or reorder text is shown by its code point. */
export function printable(text: string): string {
  if (PLAIN.test(text)) return text;
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

/** What needs no looking at, as nearly all texts. */
const PLAIN = /^[\x20-\x7e…]*$/;
const combining = /^[\p{Mn}\p{Me}]$/u;
/** Blocks of East Asian wide and full-width characters. */
const wideBlocks =
  "\\u1100-\\u115f\\u2e80-\\u303e\\u3041-\\ua4cf\\ua960-\\ua97c\\uac00-\\ud7a3\\uf900-\\ufaff" +
  "\\ufe30-\\ufe6f\\uff00-\\uff60\\uffe0-\\uffe6\\u{1b000}-\\u{1b2ff}\\u{20000}-\\u{3fffd}";
/** Characters that take two columns of a terminal. */
const wide = new RegExp(`^(?:[${wideBlocks}]|\\p{Emoji_Presentation})$`, "u");

/** Columns that a text takes on a terminal. */
export function displayWidth(text: string): number {
  if (PLAIN.test(text)) return text.length;
  let width = 0;
  for (const character of text) width += combining.test(character) ? 0 : wide.test(character) ? 2 : 1;
  return width;
}

/** What `colourStyle` puts around texts. */
// deno-lint-ignore no-control-regex
const STYLES = /\x1b\[[\d;]*m/g;

/**
 * A sentence in lines that fit the terminal: broken between words. A word that is wider than that is left whole.
 *
 * @param indent Where lines behind the first begin.
 */
export function sentenceLines(sentence: string, width: number, indent = 2): string[] {
  const [first, ...words] = sentence.split(" ");
  const columnsOf = (word: string) => displayWidth(word.replace(STYLES, ""));
  const lines: string[] = [];
  let line = first, columns = columnsOf(first);
  for (const word of words) {
    const wordColumns = columnsOf(word), fits = columns + 1 + wordColumns <= width;
    if (!fits) lines.push(line);
    line = fits ? `${line} ${word}` : " ".repeat(indent) + word;
    columns = wordColumns + (fits ? columns + 1 : indent);
  }
  return [...lines, line];
}

/** A text that is shortened to so many columns, where it is wider. */
export function shortened(text: string, width: number): string {
  const shown = printable(text);
  return displayWidth(shown) <= width ? shown : shorten(shown, width);
}
