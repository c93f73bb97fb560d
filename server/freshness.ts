/** Which shadow to recover from, and why. No I/O. */

import { advantage, type Position } from "../wire/position.ts";

/** A shadow that has something to recover from. */
export interface Candidate {
  readonly label: string;
  readonly position: Position;
}

/**
 * Puts shadows in the order in which to try them: complete copies first, of those the newest generation, of that the
 * one that was told most; equals stay in the order given.
 *
 * @param preferred Label of the one to try before all others.
 */
export function inOrderOfFreshness<Shadow extends Candidate>(
  shadows: readonly Shadow[],
  preferred?: string,
): { order: Shadow[]; reason: string } {
  const order = shadows.toSorted((a, b) => {
    if (a.label === preferred || b.label === preferred) {
      return Number(b.label === preferred) - Number(a.label === preferred);
    }
    return Number(advantage(b.position, a.position) !== null) -
      Number(advantage(a.position, b.position) !== null);
  });
  return { order, reason: reasonFor(order, preferred) };
}

function reasonFor([first, second]: readonly Candidate[], preferred: string | undefined): string {
  if (first === undefined) return "";
  if (first.label === preferred) return "it is preferred (--prefer_shadow)";
  if (second === undefined) return "no other has state";
  const { generation, offset } = first.position;
  const where = `generation ${generation}, offset ${offset}`;
  switch (advantage(first.position, second.position)) {
    case null:
      return `it is named first of those that are equal (${where})`;
    case "complete":
      return `its copy is complete (${where}), that of the ${second.label} shadow is not`;
    case "newer generation":
      return `its copy is of a newer server (${where}) than that of the ${second.label} shadow (generation ${second.position.generation})`;
    case "more events":
      return `its copy has more events (${where}) than that of the ${second.label} shadow (offset ${second.position.offset})`;
  }
}
