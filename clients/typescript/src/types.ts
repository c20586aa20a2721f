/** What each path takes and answers, read off the generated description. Types only. */

import type { components, paths } from "./schema.ts";

export type Method = "get" | "put" | "post" | "patch" | "delete";

/** A message by its name in the description: `Schema<"scanner.v1.Finding">`. */
export type Schema<N extends keyof components["schemas"]> = components["schemas"][N];

/** A documented reason of a refusal. */
export type Reason = Schema<"Problem">["reason"];

type Served = { responses: { 200: { content: unknown } } };
type Content<O> = O extends { responses: { 200: { content: infer C } } } ? C : never;
type PathOf<O> = O extends { parameters: { path: infer V } } ? V : object;
type QueryOf<O> = O extends { parameters: { query?: infer Q } }
  ? [Q] extends [undefined]
    ? object
    : NonNullable<Q>
  : object;
type BodyOf<O> = O extends { requestBody?: infer B }
  ? NonNullable<B> extends { content: { "application/json": infer J } }
    ? J
    : never
  : never;

/** A part of the options that has to be given where anything in it has to be. */
type Part<N extends string, T> = [T] extends [never] ? unknown : object extends T ? { [K in N]?: T } : { [K in N]: T };

/** The organization may stay away from a path: it is the client's. */
type Variables<T> = T extends { organization_id: infer I } ? Omit<T, "organization_id"> & { organization_id?: I } : T;

/** The paths that serve a method with an answer of this media type. */
type Serving<M extends Method, Media extends string> = {
  [P in keyof paths]: paths[P][M] extends Served ? (Media extends keyof Content<paths[P][M]> ? P : never) : never;
}[keyof paths];

export type JsonPath<M extends Method> = Serving<M, "application/json">;
export type StreamPath = Serving<"get", "application/x-ndjson">;
export type ContentPath = Serving<"get", "application/octet-stream">;

/** The answer of a path, as JSON has it: numbers of 64 bits and amounts are strings. */
export type Answer<P extends keyof paths, M extends Method> =
  Content<paths[P][M]> extends { "application/json": infer T } ? T : never;

/** One answer of a stream. */
export type Streamed<P extends StreamPath> =
  Content<paths[P]["get"]> extends { "application/x-ndjson": infer T } ? T : never;

/** The lists: what is read page by page. */
export type ListPath = {
  [P in JsonPath<"get">]: Answer<P, "get"> extends { nextPageToken: string } ? P : never;
}[JsonPath<"get">];

/** The fields of a list's answer that hold its items. */
export type ListField<P extends ListPath> = {
  [K in keyof Answer<P, "get">]-?: Answer<P, "get">[K] extends readonly unknown[] ? K : never;
}[keyof Answer<P, "get">];

export type Item<P extends ListPath, K extends ListField<P>> = Answer<P, "get">[K] extends readonly (infer I)[]
  ? I
  : never;

/** What every call takes. */
export interface CallOptions {
  /** Gives the call up. */
  signal?: AbortSignal;
  /** Milliseconds for the whole call, repetitions included; of a stream, until it begins. */
  deadline?: number;
}

/** What a change takes besides. */
export interface ChangeOptions {
  /** A UUID that makes the change safe to repeat, also by you: the same one gets the first answer. Default: a new one. */
  idempotencyKey?: string;
  /** The `ETag` that the change is for: another one now is refused with 412. */
  ifMatch?: string;
}

/** All that a call of this path takes. */
export type Options<P extends keyof paths, M extends Method> = Part<"path", Variables<PathOf<paths[P][M]>>> &
  Part<"query", QueryOf<paths[P][M]>> &
  Part<"body", BodyOf<paths[P][M]>> &
  CallOptions &
  (M extends "get" ? unknown : ChangeOptions);

/** The options as the last argument, which may stay away where nothing has to be said. */
export type Arguments<P extends keyof paths, M extends Method> =
  object extends Options<P, M> ? [options?: Options<P, M>] : [options: Options<P, M>];
