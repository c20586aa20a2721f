export { RecoupClient, type Settings } from "./client.ts";
export { bearerToken, browserSession, type Credential, type Token } from "./credentials.ts";
export {
  Conflict,
  DeadlineExceeded,
  Denied,
  InvalidRequest,
  NotAvailable,
  NotFound,
  type Problem,
  RecoupError,
  SignInNeeded,
  Unreachable,
} from "./errors.ts";
export { Operation, type Waiting } from "./operations.ts";
export type { RetryRule } from "./retry.ts";
export type { components, paths } from "./schema.ts";
export type { Answer, Item, Options, Reason, Schema } from "./types.ts";
