/** Waiting that somebody may end. */

/** Waits for a time, or until all waiting is over. */
export class Pause {
  #over = false;
  #wake: () => void = () => {};

  /** @param end When it is over. */
  constructor(end: Promise<unknown>) {
    end.then(() => {
      this.#over = true;
      this.#wake();
    });
  }

  get over(): boolean {
    return this.#over;
  }

  async wait(ms: number): Promise<void> {
    if (this.#over) return;
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
  }
}
