/** When a failed call is repeated, and after how long. Pure. */

export interface RetryRule {
  /** How often a call is tried in all. */
  attempts: number;
  /** Milliseconds; each further pause may be twice as long, and is drawn from zero to that. */
  firstPause: number;
  longestPause: number;
}

export const RETRIES: RetryRule = { attempts: 3, firstPause: 200, longestPause: 5000 };

/** How a try ended: without an answer, or with a refusal. */
export interface Failure {
  status?: number | undefined;
  reason?: string | undefined;
  retryAfter?: string | null | undefined;
}

/**
 * The pause in milliseconds before the next try, or undefined where there is none. `isRepeatable` says that the call
 * changes nothing, or carries a key by which a repetition is known.
 */
export function pauseAfter(
  failure: Failure,
  tried: number,
  isRepeatable: boolean,
  rule: RetryRule,
  random: () => number = Math.random,
  now: () => number = Date.now,
): number | undefined {
  if (tried >= rule.attempts || !mayRepeat(failure, isRepeatable)) return undefined;
  const drawn = random() * Math.min(rule.longestPause, rule.firstPause * 2 ** (tried - 1));
  // Spread behind the moment that was named, or all who were refused come back at once.
  return retryAfter(failure.retryAfter, now()) + drawn;
}

function mayRepeat({ status, reason }: Failure, isRepeatable: boolean): boolean {
  // Refused before anybody looked at what it asks for. QUOTA_EXCEEDED, also 429, isn't: waiting doesn't make room.
  if (status === 429) return reason === undefined || reason === "RATE_LIMITED";
  if (!isRepeatable) return false;
  return status === undefined || status === 502 || status === 503 || reason === "REQUEST_IN_FLIGHT";
}

/** RFC 9110, 10.2.3: seconds, or a date; in milliseconds from now. */
export function retryAfter(text: string | null | undefined, now: number): number {
  if (!text) return 0;
  const at = /^\d+$/.test(text) ? now + Number(text) * 1000 : Date.parse(text);
  return Number.isNaN(at) ? 0 : Math.max(0, at - now);
}
