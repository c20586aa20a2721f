/** The compiled client at a live gateway, with a person's token: run by tests/mesh/test_typescript.py. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  bearerToken,
  browserSession,
  Denied,
  InvalidRequest,
  NotFound,
  RecoupClient,
  SignInNeeded,
} from "@recoup/client";

const { RECOUP_GATEWAY: baseUrl = "", RECOUP_TOKEN: token = "", RECOUP_ORG: organization = "" } = process.env;
const { SIGN_IN_TOKEN: signInToken = "", CONNECTION_ID: connectionId = "" } = process.env;
const NOBODYS = "0191f2a4-7a52-7d0e-9c3b-aabbccddeeff";
const SCANS = "/v1/organizations/{organization_id}/scans";
const client = new RecoupClient({ baseUrl, credential: bearerToken(token), organization });

test("a list is read page by page", async () => {
  const query = { pageSize: 7, skuPrefix: "ebs." };
  const keys: string[] = [];
  for await (const { region, sku, unitPrice } of client.items("/v1/organizations/{organization_id}/prices", "prices", {
    query,
  })) {
    assert.match(unitPrice?.amount ?? "", /^\d+(\.\d+)?$/);
    keys.push(`${region} ${sku}`);
  }
  assert.ok(keys.length > 7);
  assert.equal(new Set(keys).size, keys.length);
});

test("refusals are typed, with reason, metadata and fields", async () => {
  const read = (scan_id: string) => client.get(`${SCANS}/{scan_id}`, { path: { scan_id } });
  await assert.rejects(read(NOBODYS), (error) => {
    assert.ok(error instanceof NotFound);
    assert.deepEqual([error.reason, error.metadata], ["RESOURCE_NOT_FOUND", { resource: "scan" }]);
    assert.ok(error.requestId && error.traceId);
    return true;
  });
  await assert.rejects(
    read("x"),
    (error) => error instanceof InvalidRequest && error.violations[0]?.field === "scan_id",
  );
  await assert.rejects(
    client.get("/v1/organizations/{organization_id}/members"),
    (error) => error instanceof Denied && error.metadata.permission === "identity.member.read",
  );
  const nobody = new RecoupClient({ baseUrl, credential: bearerToken("nobody's"), organization });
  await assert.rejects(nobody.get(SCANS), SignInNeeded);
});

test("a scan whose start's answer was lost is started once, and followed to its end in both forms", async () => {
  let lost = 0;
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const answer = await globalThis.fetch(input, init);
    if (init?.method === "POST") lost += 1;
    if (init?.method === "POST" && lost === 1) throw new TypeError("the answer was lost");
    return answer;
  };
  const unlucky = new RecoupClient({
    baseUrl,
    credential: bearerToken(token),
    organization,
    fetch: (url, init) => fetch(url, init),
  });
  const scans = async () => (await client.get(SCANS, { query: { pageSize: 100 } })).scans.map(({ scanId }) => scanId);
  const before = await scans();
  const { scan } = await unlucky.post(SCANS, { body: { connectionId } });
  assert.equal(lost, 2);
  const scanId = scan?.scanId ?? "";
  assert.deepEqual(
    (await scans()).filter((each) => !before.includes(each)),
    [scanId],
  );
  const events = new RecoupClient({ baseUrl, credential: bearerToken(token), organization, streams: "events" });
  const follow = async (followed: RecoupClient) => {
    const seen = [];
    for await (const state of followed.scan(scanId).progress({ deadline: 120_000 })) seen.push(state);
    return seen;
  };
  for (const seen of await Promise.all([follow(client), follow(events)])) {
    const done = seen.map(({ unitsDone }) => unitsDone);
    assert.ok(
      done.every((each, index) => index === 0 || each >= (done[index - 1] ?? 0)),
      String(done),
    );
    assert.deepEqual([seen.at(-1)?.state, done.at(-1)], ["SCAN_STATE_PARTIAL", seen.at(-1)?.unitsTotal]);
  }
});

test("a browser's session is made, used, mended and ended", async () => {
  // What a browser does by itself: it keeps the cookie, and says where its page is from.
  let cookie = "";
  const fetch = async (url: string, init: RequestInit): Promise<Response> => {
    const headers = new Headers(init.headers);
    headers.set("Origin", new URL(baseUrl).origin);
    if (cookie && init.credentials === "include") headers.set("Cookie", cookie);
    const answer = await globalThis.fetch(url, { ...init, headers });
    for (const set of answer.headers.getSetCookie()) cookie = set.split(";", 1)[0] ?? "";
    return answer;
  };
  const page = () => new RecoupClient({ baseUrl, organization, fetch, credential: browserSession() });
  const first = page();
  await first.signIn(signInToken);
  assert.match(cookie, /^__Host-recoup-session=./);
  const change = (tab: RecoupClient) => tab.post("/v1/organizations/{organization_id}:setDefault");
  await change(first);
  const reloaded = page();
  await change(reloaded); // It learns its token first.
  await reloaded.signIn(signInToken); // The other tab's token is another session's now.
  await change(first);
  await first.get(SCANS);
  await reloaded.signOut();
  await assert.rejects(first.get(SCANS), SignInNeeded);
});
