/** Long work as something to wait for: it goes on whether or not anybody does. */

import { DeadlineExceeded, NotAvailable, Unreachable } from "./errors.ts";
import { rest } from "./transport.ts";

const HOUR = 3_600_000;
// Between two looks, which become rarer the longer it takes.
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5000;

export interface Waiting {
  /** Milliseconds to wait for the end; an hour if it isn't said. */
  deadline?: number;
  signal?: AbortSignal;
}

/** Long work, such as a scan: `await operation.result()`, or each state on the way by `operation.progress()`. */
export class Operation<T> {
  readonly #read: (signal: AbortSignal) => Promise<T>;
  readonly #isOver: (state: T) => boolean;
  readonly #watch: ((signal: AbortSignal) => AsyncIterable<T>) | undefined;

  /** `watch` gives each state as it comes, where the API has a stream of them. */
  constructor(
    read: (signal: AbortSignal) => Promise<T>,
    isOver: (state: T) => boolean,
    watch?: (signal: AbortSignal) => AsyncIterable<T>,
  ) {
    this.#read = read;
    this.#isOver = isOver;
    this.#watch = watch;
  }

  /** How it stands now. */
  now(signal: AbortSignal = new AbortController().signal): Promise<T> {
    return this.#read(signal);
  }

  /** How it ended, well or not: look at its state. Throws DeadlineExceeded; the work goes on then. */
  async result(waiting: Waiting = {}): Promise<T> {
    let last: T | undefined;
    for await (const state of this.progress(waiting)) last = state;
    return last as T;
  }

  /** Each state that differs from the one before; the last one is its end. */
  async *progress({ deadline = HOUR, signal }: Waiting = {}): AsyncGenerator<T, void, undefined> {
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new DeadlineExceeded(`it isn't over after ${deadline} ms, and goes on`)),
      deadline,
    );
    const ending = signal ? AbortSignal.any([signal, late.signal]) : late.signal;
    try {
      let last = "";
      for await (const state of this.#states(ending)) {
        const shown = JSON.stringify(state);
        if (shown !== last) yield state;
        last = shown;
        if (this.#isOver(state)) return;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async *#states(signal: AbortSignal): AsyncGenerator<T> {
    for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 1.5, LONGEST_PAUSE)) {
      try {
        if (this.#watch) yield* this.#watch(signal);
        else yield await this.#read(signal);
      } catch (error) {
        // A stream has an end of its own, and a gateway may leave: what it is about goes on.
        if (!(error instanceof NotAvailable || error instanceof Unreachable)) throw error;
      }
      await rest(pause, signal);
    }
  }
}
