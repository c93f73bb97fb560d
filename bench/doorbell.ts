/** Ours is measured without and with the doorbell page; what it is compared with has none. */

import type { Figures, Side, Subject } from "./benchmark.ts";

/** A line of the table, and its goal with the doorbell page. */
export interface DataSubject extends Subject {
  readonly doorbellGoal?: number;
}

const withPage = (name: string) => `${name}, doorbell`;

/** The subjects, and each again with the doorbell page. */
export function withAndWithout(subjects: readonly DataSubject[]): Subject[] {
  return subjects.flatMap((subject) => {
    const { goal: _, doorbellGoal, ...rest } = subject, name = withPage(subject.name);
    return [subject, doorbellGoal === undefined ? { ...rest, name } : { ...rest, name, goal: doorbellGoal }];
  });
}

/** One round of subjects made by `withAndWithout`. */
export async function measureBoth(
  side: Side,
  measure: (doorbell: boolean) => Promise<Figures>,
): Promise<Figures> {
  const without = await measure(false), page = side === "ours" ? await measure(true) : without;
  const renamed = Object.entries(page).map(([name, figure]) => [withPage(name), figure]);
  return { ...without, ...Object.fromEntries(renamed) };
}
