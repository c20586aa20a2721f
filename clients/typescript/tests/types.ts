/**
 * What type checkers see of the client. It is never run: `make lint` checks it. Each `@ts-expect-error` is a mistake that
 * a user's own type checker must find; one that isn't needed fails.
 */

import {
  type Answer,
  browserSession,
  type Item,
  NotFound,
  RecoupClient,
  type RecoupError,
  type Schema,
} from "@recoup/client";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => undefined;

const client = new RecoupClient({ baseUrl: "https://recoup.example.com", credential: browserSession() });
const FINDINGS = "/v1/organizations/{organization_id}/findings";
const SCAN = "/v1/organizations/{organization_id}/scans/{scan_id}";
const SCANS = "/v1/organizations/{organization_id}/scans";
const ID = "0191f2a4-7a52-7d0e-9c3b-aabbccddeeff";

export async function answers(): Promise<void> {
  const { findings, nextPageToken } = await client.get(FINDINGS, {
    query: { pageSize: 50, state: "FINDING_STATE_OPEN" },
  });
  same<typeof findings, Schema<"scanner.v1.Finding">[]>(true);
  same<typeof nextPageToken, string>(true);
  same<Item<typeof FINDINGS, "findings">, Schema<"scanner.v1.Finding">>(true);
  same<Answer<typeof SCAN, "get">, Schema<"scanner.v1.GetScanResponse">>(true);
  for (const finding of findings) {
    // What is always there needs no question; an amount may be unknown, and is text.
    same<typeof finding.findingId, string>(true);
    same<typeof finding.monthlySaving, Schema<"mesh.v1.Money"> | undefined>(true);
    // @ts-expect-error No such field.
    finding.savings;
    // @ts-expect-error No such state.
    finding.state === "OPEN";
    // @ts-expect-error It may be absent.
    finding.monthlySaving.amount;
    // @ts-expect-error Amounts are decimal text: a number would round them.
    (finding.monthlySaving?.amount ?? 0) + 1 > 2;
  }
  const { events } = await client.get("/v1/organizations/{organization_id}/events");
  same<typeof events, Schema<"audit.v1.Event">[]>(true);
  // 64 bits are more than a number of JavaScript holds.
  for (const event of events) same<typeof event.index, string>(true);
  await client.get("/v1/me/organizations");
}

export async function mistakes(): Promise<void> {
  // @ts-expect-error No such path.
  await client.get("/v1/organizations/{organization_id}/finding");
  // @ts-expect-error Scans aren't put.
  await client.put(SCANS, { body: { connectionId: ID } });
  // @ts-expect-error The scan has to be named.
  await client.get(SCAN);
  // @ts-expect-error So has it here.
  await client.get(SCAN, { path: {} });
  // @ts-expect-error No such parameter.
  await client.get(FINDINGS, { query: { limit: 5 } });
  // @ts-expect-error Not a number.
  await client.get(FINDINGS, { query: { pageSize: "5" } });
  // @ts-expect-error No such state.
  await client.get(FINDINGS, { query: { state: "OPEN" } });
  // @ts-expect-error What is scanned has to be said.
  await client.post(SCANS, { body: {} });
  // @ts-expect-error No such field.
  await client.post(SCANS, { body: { connectionId: ID, connection: ID } });
  // @ts-expect-error A read takes no key.
  await client.get(FINDINGS, { idempotencyKey: ID });
  // @ts-expect-error Not a list.
  void client.pages(SCAN, { path: { scan_id: ID } });
  // @ts-expect-error Not what the list holds.
  void client.items(FINDINGS, "scans");
  // @ts-expect-error Not a stream.
  void client.stream(SCAN, { path: { scan_id: ID } });
  // @ts-expect-error A bundle isn't JSON.
  await client.get("/v1/organizations/{organization_id}/evidenceExports/{export_id}/content", {
    path: { export_id: ID },
  });
}

export async function followed(): Promise<void> {
  for await (const finding of client.items(FINDINGS, "findings"))
    same<typeof finding, Schema<"scanner.v1.Finding">>(true);
  for await (const { scan } of client.stream(`${SCAN}:watch`, { path: { scan_id: ID } }))
    same<typeof scan, Schema<"scanner.v1.Scan"> | undefined>(true);
  for await (const action of client.action(ID).progress()) same<typeof action, Schema<"actions.v1.Action">>(true);
  const scan = await client.scan(ID).result({ deadline: 60_000 });
  same<typeof scan.unitsDone, number>(true);
  await client.post(SCANS, { body: { connectionId: ID }, idempotencyKey: ID, deadline: 5000 });
}

export function refused(error: RecoupError): boolean {
  // @ts-expect-error No such reason.
  if (error.reason === "NOT_FOUND") return false;
  // @ts-expect-error What a key of the metadata holds isn't sure.
  error.metadata.resource.length;
  return error instanceof NotFound && error.reason === "RESOURCE_NOT_FOUND" && error.metadata.resource === "scan";
}
