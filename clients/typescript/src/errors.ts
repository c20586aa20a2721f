/** What a call can fail with. Every refusal of the gateway is a problem document (RFC 9457) with a documented reason. */

import type { Reason, Schema } from "./types.ts";

export type Problem = Schema<"Problem">;

/** The gateway refused. `reason` and `metadata` are documented; texts are for people. */
export class RecoupError extends Error {
  readonly status: number;
  readonly reason: Reason;
  readonly metadata: Readonly<Record<string, string>>;
  /** Which field breaks which rule. */
  readonly violations: readonly { readonly field: string; readonly description: string }[];
  /** Say this one to support: `recoup trace` shows what the request did. */
  readonly requestId: string;
  readonly traceId: string;
  /** The `Retry-After` of the answer, as it came. */
  readonly retryAfter: string | null;

  constructor(problem: Problem, retryAfter: string | null = null) {
    super(`${problem.reason}: ${problem.detail}`);
    this.name = new.target.name;
    this.status = problem.status;
    this.reason = problem.reason;
    this.metadata = problem.metadata;
    this.violations = problem.violations ?? [];
    this.requestId = problem.requestId;
    this.traceId = problem.traceId;
    this.retryAfter = retryAfter;
  }
}

/** The request itself is wrong, or what it is about isn't in a state that allows it; `violations` name fields. */
export class InvalidRequest extends RecoupError {}
/** The session isn't accepted, or isn't any more. */
export class SignInNeeded extends RecoupError {}
/** Not allowed; also where a second factor or a recent sign-in is needed. */
export class Denied extends RecoupError {}
/** There is no such thing, or not for who asks. */
export class NotFound extends RecoupError {}
/** Somebody else was faster, or it exists already: read again, then repeat. */
export class Conflict extends RecoupError {}
/** Too many requests, or a part that is away: the same call may succeed later. */
export class NotAvailable extends RecoupError {}

/** No answer came, or none that is a gateway's. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
  /** The status of what answered, if anything did. */
  readonly status: number | undefined;

  constructor(message: string, status?: number, cause?: unknown) {
    super(message, { cause });
    this.status = status;
  }
}

/** The deadline passed. Whether a change was done isn't known: repeat it with the same key. */
export class DeadlineExceeded extends Error {
  override readonly name = "DeadlineExceeded";
}

const KINDS: Readonly<Record<number, typeof RecoupError>> = {
  400: InvalidRequest,
  401: SignInNeeded,
  403: Denied,
  404: NotFound,
  409: Conflict,
  412: Conflict,
  413: InvalidRequest,
  415: InvalidRequest,
  422: InvalidRequest,
  429: NotAvailable,
  503: NotAvailable,
  504: NotAvailable,
};

/** The typed error of a problem document. */
export function refusal(problem: Problem, retryAfter: string | null = null): RecoupError {
  return new (KINDS[problem.status] ?? RecoupError)(problem, retryAfter);
}

/** The problem document in a text, if it is one of a gateway's. */
export function readProblem(text: string): Problem | undefined {
  const found = parse(text);
  const isProblem = typeof found === "object" && found !== null && "reason" in found && "status" in found;
  return isProblem ? (found as Problem) : undefined;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
