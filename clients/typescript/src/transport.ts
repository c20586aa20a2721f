/** One call: tried until it is answered, refused for good, or out of time. */

import type { Credential } from "./credentials.ts";
import { DeadlineExceeded, RecoupError, readProblem, refusal, Unreachable } from "./errors.ts";
import { type Failure, pauseAfter, type RetryRule } from "./retry.ts";

export interface Request {
  method: string;
  url: string;
  headers: Headers;
  body?: string;
  /** Whether doing it twice is doing it once. */
  isRepeatable: boolean;
  signal?: AbortSignal | undefined;
  /** Milliseconds for all tries. */
  deadline: number;
}

export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

export class Transport {
  readonly #credential: Credential;
  readonly #fetch: Fetch;
  readonly #rule: RetryRule;

  constructor(credential: Credential, fetch: Fetch, rule: RetryRule) {
    this.#credential = credential;
    this.#fetch = fetch;
    this.#rule = rule;
  }

  /** What `take` makes of the answer, within the deadline. A body that goes on after it ends with the caller's signal. */
  async call<T>(request: Request, take: (answer: Response) => Promise<T>): Promise<T> {
    const ending = new AbortController();
    const late = () => ending.abort(new DeadlineExceeded(`no answer within ${request.deadline} ms`));
    const timer = setTimeout(late, request.deadline);
    const signal = request.signal ? AbortSignal.any([request.signal, ending.signal]) : ending.signal;
    try {
      return await this.#tries({ ...request, signal }, Date.now() + request.deadline, take);
    } finally {
      clearTimeout(timer);
    }
  }

  async #tries<T>(request: Request, endsAt: number, take: (answer: Response) => Promise<T>): Promise<T> {
    let isRenewed = false;
    for (let tried = 1; ; tried += 1) {
      try {
        return await take(await this.#once(request));
      } catch (error) {
        request.signal?.throwIfAborted();
        if (error instanceof RecoupError && !isRenewed && this.#credential.renews(error)) {
          isRenewed = true;
          continue;
        }
        const failure = failureOf(error);
        const pause = failure && pauseAfter(failure, tried, request.isRepeatable, this.#rule);
        // Who has to wait longer than there is time hears why at once.
        if (pause === undefined || Date.now() + pause >= endsAt) throw error;
        await rest(pause, request.signal);
      }
    }
  }

  async #once(request: Request): Promise<Response> {
    const headers = new Headers(request.headers);
    if (!headers.has("Authorization")) {
      const read = (path: string) =>
        this.#once({
          ...request,
          method: "GET",
          url: new URL(path, request.url).href,
          headers: new Headers(),
          body: "",
        });
      await this.#credential.authorize(headers, request.method !== "GET", read);
    }
    request.signal?.throwIfAborted();
    const answer = await this.#send(request, headers);
    this.#credential.learn(answer.headers);
    if (answer.ok) return answer;
    const problem = readProblem(await whole(answer, (body) => body.text()));
    if (problem) throw refusal(problem, answer.headers.get("Retry-After"));
    throw new Unreachable(`what answered isn't a Recoup gateway (status ${answer.status})`, answer.status);
  }

  async #send(request: Request, headers: Headers): Promise<Response> {
    try {
      return await this.#fetch(request.url, {
        method: request.method,
        headers,
        body: request.body || null,
        credentials: this.#credential.cookies,
        // Nothing at the gateway points elsewhere, and a token must not follow whoever does.
        redirect: "error",
        signal: request.signal ?? null,
      });
    } catch (error) {
      request.signal?.throwIfAborted();
      throw new Unreachable("the gateway didn't answer", undefined, error);
    }
  }
}

/** A body as a whole: one that breaks off is no answer. */
export async function whole<T>(answer: Response, read: (answer: Response) => Promise<T>): Promise<T> {
  try {
    return await read(answer);
  } catch (error) {
    throw new Unreachable("the answer broke off", undefined, error);
  }
}

function failureOf(error: unknown): Failure | undefined {
  return error instanceof RecoupError || error instanceof Unreachable ? error : undefined;
}

/** Wait, unless the signal comes first. */
export function rest(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((done, failed) => {
    const leave = () => {
      clearTimeout(timer);
      failed(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", leave);
      done();
    }, milliseconds);
    if (signal?.aborted) leave();
    signal?.addEventListener("abort", leave, { once: true });
  });
}
