import assert from "node:assert/strict";
import { test } from "node:test";

import { pauseAfter, RETRIES, retryAfter } from "../src/retry.ts";

const pause = (failure: Parameters<typeof pauseAfter>[0], tried: number, isRepeatable: boolean, drawn = 1) =>
  pauseAfter(
    failure,
    tried,
    isRepeatable,
    RETRIES,
    () => drawn,
    () => 0,
  );

test("what changes nothing, or has a key, is repeated when a part was away", () => {
  for (const failure of [
    {},
    { status: 502 },
    { status: 503, reason: "DEPENDENCY_UNAVAILABLE" },
    { status: 409, reason: "REQUEST_IN_FLIGHT" },
  ]) {
    assert.equal(pause(failure, 1, true), RETRIES.firstPause);
    assert.equal(pause(failure, 1, false), undefined);
  }
});

test("what was counted and refused is repeated whatever it is, and what is full isn't", () => {
  assert.equal(pause({ status: 429, reason: "RATE_LIMITED", retryAfter: "2" }, 1, false), 2000 + RETRIES.firstPause);
  assert.equal(pause({ status: 429, reason: "QUOTA_EXCEEDED", retryAfter: "1" }, 1, true), undefined);
});

test("nothing else is repeated", () => {
  for (const status of [400, 401, 403, 404, 409, 412, 422, 500, 504])
    assert.equal(pause({ status, reason: "X" }, 1, true), undefined);
});

test("pauses grow to a limit, are drawn, and end", () => {
  const rule = { ...RETRIES, attempts: 9 };
  const drawn = (share: number) =>
    [1, 2, 3, 8].map((tried) =>
      pauseAfter(
        {},
        tried,
        true,
        rule,
        () => share,
        () => 0,
      ),
    );
  assert.deepEqual(drawn(1), [200, 400, 800, 5000]);
  assert.deepEqual(drawn(0), [0, 0, 0, 0]);
  assert.equal(pause({}, RETRIES.attempts, true), undefined);
});

test("when to come again is seconds, a date, or nothing", () => {
  const now = Date.UTC(2026, 2, 1);
  const found = [null, "", "3", "0", "Sun, 01 Mar 2026 00:00:05 GMT", "Sat, 28 Feb 2026 00:00:00 GMT", "soon"].map(
    (text) => retryAfter(text, now),
  );
  assert.deepEqual(found, [0, 0, 3000, 0, 5000, 0, 0]);
});
