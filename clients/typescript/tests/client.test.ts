/** The client against a fetch of the test's own: what it sends, what it repeats, and what its callers get. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  bearerToken,
  browserSession,
  Conflict,
  DeadlineExceeded,
  NotAvailable,
  NotFound,
  RecoupClient,
  type Settings,
  SignInNeeded,
  Unreachable,
} from "../src/index.ts";

const ACME = "0191f2a4-7a52-7d0e-9c3b-000000000001";
const SCAN_ID = "0191f2a4-7a52-7d0e-9c3b-000000000002";
const FINDINGS = "/v1/organizations/{organization_id}/findings";
const SCANS = "/v1/organizations/{organization_id}/scans";
const CONNECTION = { connectionId: "0191f2a4-7a52-7d0e-9c3b-000000000003" };

interface Sent {
  method: string;
  url: URL;
  headers: Headers;
  body: unknown;
  cookies: string | undefined;
}

type Reply = (sent: Sent, signal: AbortSignal) => Response | Promise<Response>;

/** A client whose calls are answered by the replies, one after the other, and the calls that it made. */
function made(replies: Reply[], settings: Partial<Settings> = {}): { client: RecoupClient; sent: Sent[] } {
  const sent: Sent[] = [];
  const fetch = async (
    url: string,
    { method = "", headers, body, credentials, signal }: RequestInit,
  ): Promise<Response> => {
    const each = {
      method,
      url: new URL(url),
      headers: new Headers(headers),
      body: body ? JSON.parse(String(body)) : undefined,
      cookies: credentials,
    };
    sent.push(each);
    const reply = replies[sent.length - 1];
    assert.ok(reply, `${sent.length} calls were made`);
    assert.ok(signal);
    return reply(each, signal);
  };
  const client = new RecoupClient({
    baseUrl: "https://recoup.example.com/",
    credential: bearerToken("token"),
    organization: ACME,
    retries: { firstPause: 1, longestPause: 2 },
    fetch,
    ...settings,
  });
  return { client, sent };
}

const json =
  (document: unknown, headers: Record<string, string> = {}): Reply =>
  () =>
    Response.json(document, { headers });
const problem =
  (status: number, reason: string, metadata = {}, headers: Record<string, string> = {}): Reply =>
  () =>
    Response.json(
      { type: "", title: "", status, detail: "why", reason, metadata, requestId: "r", traceId: "t" },
      { status, headers },
    );
const lost: Reply = () => Promise.reject(new TypeError("fetch failed"));
const silent: Reply = (_, signal) =>
  new Promise((_done, failed) => signal.addEventListener("abort", () => failed(signal.reason)));

test("a call says who, where and what", async () => {
  const { client, sent } = made([json({ findings: [], nextPageToken: "" })]);
  await client.get(FINDINGS, { query: { pageSize: 5, detectionId: "a&b" } });
  const [call] = sent;
  assert.equal(
    call?.url.href,
    `https://recoup.example.com/v1/organizations/${ACME}/findings?pageSize=5&detectionId=a%26b`,
  );
  assert.deepEqual(
    [call.method, call.headers.get("Authorization"), call.headers.get("Idempotency-Key"), call.cookies],
    ["GET", "Bearer token", null, "omit"],
  );
});

test("an organization that the path leaves open is named by the header", async () => {
  const { client, sent } = made([json({}), json({})]);
  await client.get(FINDINGS, { path: { organization_id: "-" } });
  await client.get("/v1/me/organizations");
  assert.deepEqual(
    sent.map(({ url, headers }) => [url.pathname, headers.get("Recoup-Organization")]),
    [
      ["/v1/organizations/-/findings", ACME],
      ["/v1/me/organizations", null],
    ],
  );
});

test("an id stays one segment of the path, and can't be another path", async () => {
  const { client, sent } = made([json({ scan: {} })]);
  const path = `${SCANS}/{scan_id}` as const;
  await client.get(path, { path: { scan_id: "a/b?c#d" } });
  assert.equal(sent[0]?.url.pathname, `/v1/organizations/${ACME}/scans/a%2Fb%3Fc%23d`);
  for (const scan_id of ["", ".", ".."])
    await assert.rejects(async () => client.get(path, { path: { scan_id } }), TypeError);
});

test("a session isn't sent in the clear", () => {
  assert.throws(() => made([], { baseUrl: "http://recoup.example.com" }), TypeError);
  made([], { baseUrl: "http://127.0.0.1:8080" });
});

test("a change whose answer was lost is repeated under one key", async () => {
  const { client, sent } = made([
    lost,
    problem(409, "REQUEST_IN_FLIGHT", {}, { "Retry-After": "0" }),
    json({ scan: { scanId: SCAN_ID } }),
  ]);
  const { scan } = await client.post(SCANS, { body: CONNECTION });
  assert.equal(scan?.scanId, SCAN_ID);
  assert.deepEqual(
    sent.map(({ body }) => body),
    [CONNECTION, CONNECTION, CONNECTION],
  );
  assert.match(sent[0]?.headers.get("Idempotency-Key") ?? "", /^[0-9a-f-]{36}$/);
  assert.equal(new Set(sent.map(({ headers }) => headers.get("Idempotency-Key"))).size, 1);
});

test("a key is the caller's where there is one", async () => {
  const { client, sent } = made([json({}), json({})]);
  await client.post(SCANS, { body: CONNECTION, idempotencyKey: "mine" });
  await client.post(SCANS, { body: { ...CONNECTION, requestId: "the-body's" } });
  assert.deepEqual(
    sent.map(({ headers }) => headers.get("Idempotency-Key")),
    ["mine", "the-body's"],
  );
});

test("a change that takes no key isn't repeated", async () => {
  const { client, sent } = made([lost]);
  await assert.rejects(client.signIn("token"), Unreachable);
  assert.deepEqual([sent.length, sent[0]?.headers.get("Idempotency-Key")], [1, null]);
});

test("a refusal is a typed error with its reason and metadata, and isn't repeated", async () => {
  const { client, sent } = made([
    problem(404, "RESOURCE_NOT_FOUND", { resource: "scan" }),
    problem(409, "ETAG_MISMATCH"),
  ]);
  await assert.rejects(client.get(`${SCANS}/{scan_id}`, { path: { scan_id: SCAN_ID } }), (error: unknown) => {
    assert.ok(error instanceof NotFound);
    assert.deepEqual(
      [error.name, error.status, error.reason, error.metadata, error.requestId],
      ["NotFound", 404, "RESOURCE_NOT_FOUND", { resource: "scan" }, "r"],
    );
    return true;
  });
  await assert.rejects(client.post(SCANS, { body: CONNECTION }), Conflict);
  assert.equal(sent.length, 2);
});

test("what isn't a gateway is said to be none", async () => {
  const page: Reply = () => new Response("<html>", { status: 200 });
  const balancer: Reply = () => new Response("<html>", { status: 404 });
  const broken: Reply = () =>
    new Response(new ReadableStream({ start: (made) => made.error(new TypeError("terminated")) }));
  const { client, sent } = made([page, balancer, broken, broken, broken]);
  for (const status of [200, 404, undefined]) {
    await assert.rejects(client.get(FINDINGS), (error) => error instanceof Unreachable && error.status === status);
  }
  assert.equal(sent.length, 5);
});

test("who must wait longer than there is time hears why at once", async () => {
  const { client } = made([problem(429, "RATE_LIMITED", {}, { "Retry-After": "60" })]);
  await assert.rejects(client.get(FINDINGS, { deadline: 1000 }), NotAvailable);
});

test("a deadline ends a call that nobody answers, and a signal ends it sooner", async () => {
  const { client } = made([silent, silent]);
  await assert.rejects(client.get(FINDINGS, { deadline: 10 }), DeadlineExceeded);
  const leaving = new AbortController();
  const call = client.get(FINDINGS, { signal: leaving.signal });
  leaving.abort(new Error("the page was left"));
  await assert.rejects(call, /the page was left/);
});

test("a session that is over is asked for anew, once", async () => {
  const asked: boolean[] = [];
  const credential = bearerToken((isFresh) => {
    asked.push(isFresh);
    return `token-${asked.length}`;
  });
  const over = problem(401, "CREDENTIAL_EXPIRED");
  const { client, sent } = made([over, json({}), over, over], { credential });
  await client.get(FINDINGS);
  await assert.rejects(client.get(FINDINGS), SignInNeeded);
  assert.deepEqual(asked, [false, true, false, true]);
  assert.deepEqual(
    sent.map(({ headers }) => headers.get("Authorization")),
    asked.map((_, index) => `Bearer token-${index + 1}`),
  );
});

test("a browser's session carries its token, and learns another", async () => {
  const csrf = (value: string) => json({}, { "Recoup-Csrf": value });
  const { client, sent } = made(
    [csrf("one"), json({}), problem(403, "PAGE_REFUSED", { cause: "token" }), csrf("two"), json({})],
    { credential: browserSession() },
  );
  await client.post(SCANS, { body: CONNECTION }); // After a reload: it has to be read first.
  await client.post(SCANS, { body: CONNECTION }); // Another tab signed in anew.
  assert.deepEqual(
    sent.map(({ method, headers, cookies }) => [method, headers.get("Recoup-Csrf"), cookies]),
    [
      ["GET", null, "include"],
      ["POST", "one", "include"],
      ["POST", "one", "include"],
      ["GET", null, "include"],
      ["POST", "two", "include"],
    ],
  );
});

test("a list goes from page to page, and no further than it is read", async () => {
  const page = (ids: string[], nextPageToken: string) =>
    json({ findings: ids.map((findingId) => ({ findingId })), nextPageToken });
  const { client, sent } = made([page(["1", "2"], "a/b"), page([], "c"), page(["3"], ""), page(["4"], "d")]);
  const found: string[] = [];
  for await (const { findingId } of client.items(FINDINGS, "findings", { query: { pageSize: 2 } }))
    found.push(findingId);
  assert.deepEqual(found, ["1", "2", "3"]);
  assert.deepEqual(
    sent.map(({ url }) => url.searchParams.get("pageToken")),
    [null, "a/b", "c"],
  );
  for await (const { nextPageToken } of client.pages(FINDINGS)) {
    assert.equal(nextPageToken, "d");
    break;
  }
  assert.equal(sent.length, 4);
});

const scan = (state: string, unitsDone: number) => ({ scan: { scanId: SCAN_ID, state, unitsDone } });

test("a stream is read as it comes, in either form, and says what broke it", async () => {
  const document = {
    type: "",
    title: "",
    status: 503,
    detail: "",
    reason: "SHUTTING_DOWN",
    metadata: {},
    requestId: "",
    traceId: "",
  };
  const bodies = {
    lines: `${JSON.stringify(scan("SCAN_STATE_RUNNING", 1))}\n${JSON.stringify({ error: document })}\n`,
    events: `data: ${JSON.stringify(scan("SCAN_STATE_RUNNING", 1))}\n\nevent: problem\ndata: ${JSON.stringify(document)}\n\n`,
  };
  for (const streams of ["lines", "events"] as const) {
    const { client, sent } = made([() => new Response(bodies[streams])], { streams });
    const found: unknown[] = [];
    await assert.rejects(async () => {
      for await (const each of client.stream(`${SCANS}/{scan_id}:watch`, { path: { scan_id: SCAN_ID } }))
        found.push(each.scan?.unitsDone);
    }, NotAvailable);
    assert.deepEqual(found, [1]);
    assert.equal(sent[0]?.headers.get("Accept"), streams === "lines" ? "application/x-ndjson" : "text/event-stream");
  }
});

test("who leaves a stream ends it", async () => {
  let isLeft = false;
  const body = new ReadableStream({
    start: (made) => made.enqueue(new TextEncoder().encode(`${JSON.stringify(scan("SCAN_STATE_RUNNING", 1))}\n`)),
    cancel: () => {
      isLeft = true;
    },
  });
  const { client } = made([() => new Response(body)]);
  for await (const _ of client.stream(`${SCANS}/{scan_id}:watch`, { path: { scan_id: SCAN_ID } })) break;
  assert.ok(isLeft);
});

test("long work is awaited over streams that end, and says how far it is", async () => {
  const lines =
    (...states: object[]): Reply =>
    () =>
      new Response(states.map((each) => `${JSON.stringify(each)}\n`).join(""));
  const running = scan("SCAN_STATE_RUNNING", 1);
  const { client } = made([
    lines(running),
    lines(running, scan("SCAN_STATE_RUNNING", 2)),
    lines(scan("SCAN_STATE_PARTIAL", 3), running),
  ]);
  const found: string[] = [];
  for await (const { state, unitsDone } of client.scan(SCAN_ID).progress()) found.push(`${state} ${unitsDone}`);
  assert.deepEqual(found, ["SCAN_STATE_RUNNING 1", "SCAN_STATE_RUNNING 2", "SCAN_STATE_PARTIAL 3"]);
});

test("who waits for long work may give up, and hears what ended it", async () => {
  const endless = Array.from({ length: 20 }, () => json(scan("SCAN_STATE_RUNNING", 1)));
  await assert.rejects(made(endless).client.scan(SCAN_ID).result({ deadline: 10 }), DeadlineExceeded);
  await assert.rejects(
    made([problem(404, "RESOURCE_NOT_FOUND")])
      .client.evidenceExport(SCAN_ID)
      .result(),
    NotFound,
  );
});
