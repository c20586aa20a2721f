/** The client: each path of the API, with what it takes and answers known to the type checker. */

import type { Credential } from "./credentials.ts";
import { readProblem, refusal, Unreachable } from "./errors.ts";
import { KEYLESS } from "./keyless.ts";
import { jsonLines, serverSentEvents } from "./lines.ts";
import { Operation } from "./operations.ts";
import { RETRIES, type RetryRule } from "./retry.ts";
import { type Fetch, type Request, Transport, whole } from "./transport.ts";
import type {
  Answer,
  Arguments,
  ContentPath,
  Item,
  JsonPath,
  ListField,
  ListPath,
  Options,
  Schema,
  Streamed,
  StreamPath,
} from "./types.ts";

export interface Settings {
  /** The gateway, such as `https://recoup.example.com`; in a browser the page's own origin if it stays away. */
  baseUrl?: string;
  credential: Credential;
  /** The organization's id. Without one it is the person's default. */
  organization?: string;
  /** Milliseconds for a call, its repetitions included. */
  deadline?: number;
  retries?: Partial<RetryRule>;
  /** How streams are read. Both say the same. */
  streams?: "lines" | "events";
  fetch?: Fetch;
}

/** What a call may have been given; the types of each path say which of it. */
interface Given {
  path?: Readonly<Record<string, unknown>>;
  query?: Readonly<Record<string, unknown>>;
  body?: unknown;
  signal?: AbortSignal;
  deadline?: number;
  idempotencyKey?: string;
  ifMatch?: string;
  headers?: Readonly<Record<string, string>>;
}

const DEADLINE = 30_000;
const MEDIA = { lines: "application/x-ndjson", events: "text/event-stream" } as const;

export class RecoupClient {
  readonly #settings: Settings;
  readonly #transport: Transport;
  readonly #base: string;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#base = baseOf(settings.baseUrl ?? globalThis.location?.origin);
    const fetch = settings.fetch ?? ((url, init) => globalThis.fetch(url, init));
    this.#transport = new Transport(settings.credential, fetch, { ...RETRIES, ...settings.retries });
  }

  get<P extends JsonPath<"get">>(path: P, ...[options]: Arguments<P, "get">): Promise<Answer<P, "get">> {
    return this.#json("GET", path, options);
  }

  post<P extends JsonPath<"post">>(path: P, ...[options]: Arguments<P, "post">): Promise<Answer<P, "post">> {
    return this.#json("POST", path, options);
  }

  put<P extends JsonPath<"put">>(path: P, ...[options]: Arguments<P, "put">): Promise<Answer<P, "put">> {
    return this.#json("PUT", path, options);
  }

  patch<P extends JsonPath<"patch">>(path: P, ...[options]: Arguments<P, "patch">): Promise<Answer<P, "patch">> {
    return this.#json("PATCH", path, options);
  }

  delete<P extends JsonPath<"delete">>(path: P, ...[options]: Arguments<P, "delete">): Promise<Answer<P, "delete">> {
    return this.#json("DELETE", path, options);
  }

  /** What isn't JSON, as it came: evidence bundles, tiles and checkpoints of the log. */
  download<P extends ContentPath>(path: P, ...[options]: Arguments<P, "get">): Promise<Uint8Array> {
    const take = async (answer: Response) => new Uint8Array(await whole(answer, (body) => body.arrayBuffer()));
    return this.#transport.call(this.#request("GET", path, options as Given, "*/*"), take);
  }

  /** A list page by page, each asked for when it is wanted. */
  async *pages<P extends ListPath>(
    path: P,
    ...[options]: Arguments<P, "get">
  ): AsyncGenerator<Answer<P, "get">, void, undefined> {
    const given = (options ?? {}) as Given;
    for (let pageToken = given.query?.pageToken; ; ) {
      const page = await this.#json<Answer<P, "get">>("GET", path, { ...given, query: { ...given.query, pageToken } });
      yield page;
      pageToken = (page as { nextPageToken: string }).nextPageToken;
      if (!pageToken) return;
    }
  }

  /** Every item of a list: `for await (const finding of client.items(path, "findings"))`. */
  async *items<P extends ListPath, K extends ListField<P>>(
    path: P,
    field: K,
    ...rest: Arguments<P, "get">
  ): AsyncGenerator<Item<P, K>, void, undefined> {
    for await (const page of this.pages(path, ...rest)) yield* page[field] as Iterable<Item<P, K>>;
  }

  /** The answers of a stream as they come. It ends when its subject is over, or after some minutes: then open it again. */
  async *stream<P extends StreamPath>(
    path: P,
    ...[options]: Arguments<P, "get">
  ): AsyncGenerator<Streamed<P>, void, undefined> {
    const kind = this.#settings.streams ?? "lines";
    const request = this.#request("GET", path, options as Given, MEDIA[kind]);
    const answer = await this.#transport.call(request, async (opened) => opened);
    try {
      for await (const found of kind === "lines" ? readLines(answer) : readEvents(answer)) yield found as Streamed<P>;
    } catch (error) {
      request.signal?.throwIfAborted();
      if (error instanceof TypeError || error instanceof SyntaxError)
        throw new Unreachable("the stream broke off", undefined, error);
      throw error;
    }
  }

  /** A scan, until it is over. */
  scan(scanId: string): Operation<Schema<"scanner.v1.Scan">> {
    const path = { scan_id: scanId };
    const isOver = ({ state }: Schema<"scanner.v1.Scan">) =>
      state !== "SCAN_STATE_QUEUED" && state !== "SCAN_STATE_RUNNING";
    const read = async (signal: AbortSignal) =>
      present((await this.get("/v1/organizations/{organization_id}/scans/{scan_id}", { path, signal })).scan);
    const watch = async function* (this: RecoupClient, signal: AbortSignal) {
      for await (const { scan } of this.stream("/v1/organizations/{organization_id}/scans/{scan_id}:watch", {
        path,
        signal,
      }))
        yield present(scan);
    };
    return new Operation(read, isOver, watch.bind(this));
  }

  /** An action, until it is executed or won't be. */
  action(actionId: string): Operation<Schema<"actions.v1.Action">> {
    const path = { action_id: actionId };
    const isOver = ({ state }: Schema<"actions.v1.Action">) => ACTION_OVER.has(state);
    const read = async (signal: AbortSignal) =>
      present((await this.get("/v1/organizations/{organization_id}/actions/{action_id}", { path, signal })).action);
    const watch = async function* (this: RecoupClient, signal: AbortSignal) {
      for await (const { action } of this.stream("/v1/organizations/{organization_id}/actions/{action_id}:watch", {
        path,
        signal,
      }))
        yield present(action);
    };
    return new Operation(read, isOver, watch.bind(this));
  }

  /** A bundle of evidence, until it is there or can't be made. */
  evidenceExport(exportId: string): Operation<Schema<"audit.v1.EvidenceExport">> {
    const path = { export_id: exportId };
    const isOver = ({ state }: Schema<"audit.v1.EvidenceExport">) =>
      state !== "EVIDENCE_STATE_QUEUED" && state !== "EVIDENCE_STATE_RUNNING";
    const read = async (signal: AbortSignal) =>
      present(
        (await this.get("/v1/organizations/{organization_id}/evidenceExports/{export_id}", { path, signal })).export,
      );
    return new Operation(read, isOver);
  }

  /** Makes the browser's session of a session token, which can be forgotten then. */
  signIn(
    token: string,
    options: { signal?: AbortSignal } = {},
  ): Promise<Answer<"/v1/organizations/{organization_id}/browserSessions", "post">> {
    return this.#json("POST", "/v1/organizations/{organization_id}/browserSessions", {
      ...options,
      headers: { Authorization: `Bearer ${token}` },
    });
  }

  /** Ends the browser's session, and the sign-in that it was made of. */
  signOut(options: { signal?: AbortSignal } = {}): Promise<Answer<"/v1/me/browserSession", "delete">> {
    return this.#json("DELETE", "/v1/me/browserSession", options);
  }

  #json<T>(method: string, path: string, given: Given | undefined): Promise<T> {
    const take = async (answer: Response) => {
      const text = await whole(answer, (body) => body.text());
      try {
        return JSON.parse(text) as T;
      } catch (error) {
        throw new Unreachable("what answered isn't a Recoup gateway (no JSON)", answer.status, error);
      }
    };
    return this.#transport.call(this.#request(method, path, given, "application/json"), take);
  }

  #request(method: string, path: string, given: Given = {}, accept: string): Request {
    const headers = new Headers({ Accept: accept, ...given.headers });
    const variables = { organization_id: this.#settings.organization ?? "-", ...given.path };
    if (variables.organization_id === "-" && this.#settings.organization)
      headers.set("Recoup-Organization", this.#settings.organization);
    const takesKey = method !== "GET" && !KEYLESS.has(`${method} ${path}`);
    if (takesKey) headers.set("Idempotency-Key", keyOf(given));
    if (given.ifMatch) headers.set("If-Match", given.ifMatch);
    if (method === "POST" || given.body !== undefined) headers.set("Content-Type", "application/json");
    return {
      method,
      url: this.#base + filled(path, variables) + queryOf(given.query),
      headers,
      ...(headers.has("Content-Type") && { body: JSON.stringify(given.body ?? {}) }),
      isRepeatable: method === "GET" || takesKey,
      signal: given.signal,
      deadline: given.deadline ?? this.#settings.deadline ?? DEADLINE,
    };
  }
}

const ACTION_OVER: ReadonlySet<Schema<"actions.v1.ActionState">> = new Set([
  "ACTION_STATE_REJECTED",
  "ACTION_STATE_CANCELLED",
  "ACTION_STATE_EXPIRED",
  "ACTION_STATE_EXECUTED",
  "ACTION_STATE_STALE",
  "ACTION_STATE_FAILED",
  "ACTION_STATE_CLOSED",
] as const);

async function* readLines(answer: Response): AsyncGenerator<unknown> {
  for await (const found of jsonLines(piecesOf(answer))) {
    const problem = (found as { error?: Parameters<typeof refusal>[0] }).error;
    if (problem) throw refusal(problem);
    yield found;
  }
}

async function* readEvents(answer: Response): AsyncGenerator<unknown> {
  for await (const { event, data } of serverSentEvents(piecesOf(answer))) {
    const problem = event === "problem" ? readProblem(data) : undefined;
    if (problem) throw refusal(problem);
    yield JSON.parse(data);
  }
}

/** Not every browser can go through a body by itself. */
async function* piecesOf(answer: Response): AsyncGenerator<Uint8Array> {
  const reader = answer.body?.getReader();
  try {
    for (let read = await reader?.read(); read && !read.done; read = await reader?.read()) yield read.value;
  } finally {
    await reader?.cancel().catch(() => undefined);
  }
}

function baseOf(url: string | undefined): string {
  if (!url) throw new TypeError("baseUrl must say where the gateway is");
  const { protocol, hostname, href } = new URL(url);
  const isHere = hostname === "localhost" || hostname === "127.0.0.1" || hostname === "[::1]";
  if (protocol !== "https:" && !(protocol === "http:" && isHere))
    throw new TypeError(`${url} would carry the session in the clear`);
  return href.replace(/\/+$/, "");
}

/** A body that names its own `requestId` is repeated under that one. */
function keyOf({ idempotencyKey, body }: Given): string {
  const named = (body as { requestId?: string } | undefined)?.requestId;
  return idempotencyKey ?? (named || crypto.randomUUID());
}

/** The path with its variables, each quoted so that it stays one segment. */
export function filled(path: string, variables: Readonly<Record<string, unknown>>): string {
  return path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = String(variables[name] ?? "");
    // Dots can't be quoted: a dot and %2E mean the same (RFC 3986, 2.3 and 5.2.4).
    if (value === "" || value === "." || value === "..")
      throw new TypeError(`${name} can't be ${JSON.stringify(value)}`);
    // A tile's path has segments of its own.
    return value
      .split("/")
      .map(encodeURIComponent)
      .join(name === "tile" ? "/" : "%2F");
  });
}

/** The query; lists say their name each time, and what is undefined stays away. */
export function queryOf(query: Readonly<Record<string, unknown>> = {}): string {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const each of Array.isArray(value) ? value : [value]) if (each !== undefined) found.append(name, String(each));
  }
  return found.size ? `?${found}` : "";
}

function present<T>(found: T | undefined): T {
  if (found === undefined) throw new Unreachable("what answered isn't a Recoup gateway of this version");
  return found;
}

export type { Options };
