/** All that may happen between two servers while one takes over from the other, in every order. */

import assert from "node:assert/strict";
import {
  Predecessor,
  type PredecessorStep,
  type Refusal,
  Successor,
  type Token,
} from "../../server/takeover.ts";

/** Parts that the old server sends; the last one is the tokens. */
const PARTS = 3;

type Action = typeof actions[number];
const actions = [
  "old sends",
  "old receives",
  "old waits too long",
  "old dies",
  "new receives",
  "new takes the baton",
  "new takes the fence",
  "new answers",
  "new waits too long",
  "new dies",
] as const;

class TestToken implements Token {
  taken = false;

  take(): boolean {
    const free = !this.taken;
    this.taken = true;
    return free;
  }
}

/** Two servers, the connection between them, and the tokens. */
class Scene {
  readonly #tokens = { baton: new TestToken(), fence: new TestToken() };
  readonly #old = new Predecessor(this.#tokens);
  readonly #new = new Successor();
  oldLives = true;
  newLives = true;
  /** Whether it serves clients; at first it is suspended. */
  oldServes = false;
  oldLeft = false;
  newServes = false;
  newStartsAfresh = false;
  #sent = 0;
  #received = 0;
  /** Whether it has the baton. */
  #took = false;
  /** Whether it has both tokens, and so serves, but has not said so. */
  #crossed = false;
  #answered = false;
  #heard = false;
  #oldClosed = false;
  #newClosed = false;
  #newOver = false;

  get #oldBusy(): boolean {
    return this.oldLives && !this.oldServes && !this.oldLeft;
  }

  get #newBusy(): boolean {
    return this.newLives && !this.#newOver;
  }

  mayDo(action: Action): boolean {
    switch (action) {
      case "old sends":
        return this.#oldBusy && !this.#oldClosed && this.#sent < PARTS;
      case "old receives":
        return this.#oldBusy && ((this.#answered && !this.#heard) || this.#newClosed);
      case "old waits too long":
        return this.#oldBusy;
      case "old dies":
        return this.oldLives;
      case "new receives":
        return this.#newBusy && !this.#took && this.#received < PARTS &&
          (this.#received < this.#sent || this.#oldClosed);
      case "new takes the baton":
        return this.#newBusy && !this.#took && this.#received === PARTS;
      case "new takes the fence":
        return this.#newBusy && this.#took;
      case "new answers":
        return this.newLives && this.#crossed && !this.#answered;
      case "new waits too long":
        return this.#newBusy && !this.#took && this.#received < PARTS;
      case "new dies":
        return this.newLives;
    }
  }

  do(action: Action): void {
    switch (action) {
      case "old sends":
        if (++this.#sent === PARTS) this.#old.offered();
        return;
      case "old receives":
        // What was sent before the end comes before it.
        if (this.#answered && !this.#heard) {
          this.#heard = true;
          return this.#stepOld(this.#old.acknowledged());
        }
        return this.#stepOld(this.#old.ended());
      case "old waits too long":
        return this.#stepOld(this.#old.timeUp());
      case "old dies":
        this.oldLives = this.oldServes = false;
        this.#oldClosed = true;
        return;
      case "new receives":
        if (this.#received === this.#sent) return this.#stepNew(this.#new.ended(null));
        if (++this.#received === 1) this.#new.granted();
        return;
      case "new takes the baton": {
        const refusal = this.#new.complete(this.#tokens);
        if (refusal !== null) return this.#stepNew(refusal);
        this.#took = true;
        return;
      }
      case "new takes the fence": {
        const refusal = this.#new.prepared(this.#tokens);
        this.#crossed = refusal === null;
        return this.#stepNew(refusal ?? { step: "serve" });
      }
      case "new answers":
        this.#answered = true;
        return;
      case "new waits too long":
        return this.#stepNew(this.#new.timeUp());
      case "new dies":
        this.newLives = this.newServes = false;
        this.#newClosed = true;
        return;
    }
  }

  #stepOld(step: PredecessorStep): void {
    if (step === "kill") {
      assert(!this.#crossed, "a server is killed that serves");
      return this.newLives ? this.do("new dies") : undefined;
    }
    if (step === "wait") return;
    this.#oldClosed = true;
    if (step === "go on") this.oldServes = true;
    else this.oldLeft = true;
  }

  #stepNew({ step }: Pick<Refusal, "step"> | { step: "serve" }): void {
    this.#newOver = true;
    if (step === "serve") {
      this.newServes = true;
      return;
    }
    this.#newClosed = true;
    // It can listen only where nobody does: whoever still has the listening socket is the server.
    if (step === "start" && !this.oldLives) this.newServes = this.newStartsAfresh = true;
    else this.newLives = false;
  }

  get gaveUp(): boolean {
    return this.#newOver && !this.newServes;
  }

  /** Whether the new one served at any time. */
  get crossed(): boolean {
    return this.#crossed;
  }

  get key(): string {
    return JSON.stringify([
      this.#tokens.baton.taken,
      this.#tokens.fence.taken,
      this.#old.phase,
      this.oldLives,
      this.newLives,
      this.oldServes,
      this.oldLeft,
      this.newServes,
      this.#sent,
      this.#received,
      this.#took,
      this.#crossed,
      this.#answered,
      this.#heard,
      this.#oldClosed,
      this.#newClosed,
      this.#newOver,
    ]);
  }
}

function after(path: readonly Action[]): Scene {
  const scene = new Scene();
  for (const action of path) scene.do(action);
  return scene;
}

/** Calls back for each state that can be reached, with a way to it. */
function explore(visit: (scene: Scene, path: readonly Action[], next: readonly Action[]) => void): number {
  const seen = new Set<string>(), paths: Action[][] = [[]];
  for (let path = paths.pop(); path !== undefined; path = paths.pop()) {
    const scene = after(path);
    if (seen.has(scene.key)) continue;
    seen.add(scene.key);
    const next = actions.filter((action) => scene.mayDo(action));
    visit(scene, path, next);
    for (const action of next) paths.push([...path, action]);
  }
  return seen.size;
}

Deno.test("in no order of events do both servers serve, and in none does neither", () => {
  const outcomes = new Set<string>();
  const states = explore((scene, path, next) => {
    const where = path.join(", ");
    assert(!(scene.oldServes && scene.newServes), `both serve: ${where}`);
    if (scene.oldLives && !scene.newLives && !scene.crossed) {
      // The old one may not know yet, but must come to know without anybody's help.
      const end = [...path];
      for (let i = 0; i < 10; i++) {
        const act = actions.find((action) =>
          /^old (receives|waits)/.test(action) && after(end).mayDo(action)
        );
        if (act !== undefined) end.push(act);
      }
      assert(after(end).oldServes, `the new one is gone, and the old one does not go on: ${where}`);
    }
    if (next.some((action) => !action.endsWith("dies"))) return;
    // Nothing will happen any more, unless somebody is killed.
    if (scene.oldLives && scene.newLives) {
      assert(
        scene.oldServes !== scene.newServes,
        `${scene.oldServes ? "both serve" : "neither serves"}: ${where}`,
      );
    } else if (scene.newLives) {
      assert(scene.newServes, `the old one is gone, and the new one does not serve: ${where}`);
    } else if (scene.oldLives && !scene.oldServes) {
      assert(scene.oldLeft && scene.crossed, `nobody serves: ${where}`);
    }
    if (scene.newStartsAfresh) outcomes.add("starts afresh");
    if (scene.newServes && scene.oldLeft) outcomes.add("taken over");
    if (scene.newServes && !scene.oldLives && scene.crossed) {
      outcomes.add("serves after the old one's death");
    }
    if (scene.oldServes && scene.gaveUp) outcomes.add("given up");
  });
  assert(states > 100, `${states} states`);
  assert.deepEqual([...outcomes].sort(), [
    "given up",
    "serves after the old one's death",
    "starts afresh",
    "taken over",
  ]);
});

/** Those of a hand-over, of which the new one has taken some. */
function tokensWithout(...taken: ("baton" | "fence")[]) {
  const tokens = { baton: new TestToken(), fence: new TestToken() };
  for (const name of taken) tokens[name].take();
  return tokens;
}

Deno.test("a new server that stops with the baton in its hand is killed, and the old one goes on", () => {
  const tokens = tokensWithout("baton"), old = new Predecessor(tokens);
  old.offered();
  assert.deepEqual([old.timeUp(), old.timeUp(), old.timeUp()], ["wait", "kill", "kill"]);
  assert(!tokens.fence.take(), "the new one cannot serve any more");
  assert.equal(old.ended(), "go on");
  assert(old.batonLost);
});

Deno.test("a new server that serves is left alone, though the old one was stopped and never heard of it", () => {
  for (const event of ["timeUp", "ended"] as const) {
    const tokens = tokensWithout("baton"), old = new Predecessor(tokens);
    old.offered();
    assert.equal(old.timeUp(), "wait");
    tokens.fence.take();
    assert.equal(old[event](), "leave");
  }
});

Deno.test("who claims to serve without having both tokens is not believed", () => {
  for (const offered of [false, true]) {
    const old = new Predecessor(tokensWithout());
    if (offered) old.offered();
    assert.equal(old.acknowledged(), "go on");
  }
  assert.equal(new Predecessor(tokensWithout("baton")).acknowledged(), "kill");
});

Deno.test("why a server cannot be taken over depends on how far it got", () => {
  const successor = new Successor();
  assert.match(successor.ended(null).reason, /those in C\+\+/);
  successor.granted();
  assert.equal(successor.ended("EPIPE").reason, "the hand-over ended early: EPIPE");
});
