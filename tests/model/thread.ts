/** A thread of a model check: runs the share that its name says, and says what came of it. */

import { CoreModel } from "./core_model.ts";
import { HoldingModel } from "./holding_model.ts";
import type { Outcome, Share } from "./threads.ts";

const scope = self as unknown as { readonly name: string; postMessage(outcome: Outcome): void };
const { model: name, first, count }: Share = JSON.parse(scope.name);
const model = name === "core" ? await CoreModel.create() : await HoldingModel.create();
let failure: string | null = null;
try {
  for (let i = 0; i < count; i++) await model.run(first + i);
} catch (error) {
  failure = (error as Error).message;
}
const done = model instanceof HoldingModel ? model.done : {};
scope.postMessage({ failure, steps: model.steps, kills: model.kills, done });
