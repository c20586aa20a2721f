/** How a call says who makes it: a bearer token, or the cookie of a browser's session with its CSRF token. */

import type { RecoupError } from "./errors.ts";

/** Who calls. The client asks it before each try, shows it each answer, and asks whether a refusal can be mended. */
export interface Credential {
  /** Whether the browser's cookies go along. */
  readonly cookies: RequestCredentials;
  /** Adds to the headers what the call needs. `read` makes a GET under the same credential. */
  authorize(headers: Headers, changes: boolean, read: (path: string) => Promise<Response>): Promise<void>;
  learn(headers: Headers): void;
  /** Whether the same call may succeed now: it was refused before anything was done. Asked once a call. */
  renews(refusal: RecoupError): boolean;
}

/** A token, or how one is had; `isFresh` asks for another than the last one, which was refused. */
export type Token = string | ((isFresh: boolean) => string | Promise<string>);

/** A session token of the sign-in, or the API token of a service account. */
export function bearerToken(token: Token): Credential {
  let needsFresh = false;
  return {
    cookies: "omit",
    async authorize(headers) {
      const isFresh = needsFresh;
      needsFresh = false;
      headers.set("Authorization", `Bearer ${typeof token === "string" ? token : await token(isFresh)}`);
    },
    learn() {},
    renews({ reason }) {
      needsFresh = typeof token !== "string" && (reason === "CREDENTIAL_EXPIRED" || reason === "CREDENTIAL_REVOKED");
      return needsFresh;
    },
  };
}

const CSRF = "Recoup-Csrf";

/** The session that the browser keeps in a cookie which no script can read. Make it with `client.signIn`. */
export function browserSession(): Credential {
  let csrf = "";
  return {
    cookies: "include",
    async authorize(headers, changes, read) {
      if (!changes) return;
      // After a reload of the page nobody has said it yet; each answer to a GET does.
      if (!csrf) csrf = (await read("/v1/me/browserSession")).headers.get(CSRF) ?? "";
      if (csrf) headers.set(CSRF, csrf);
    },
    learn(headers) {
      csrf = headers.get(CSRF) ?? csrf;
    },
    renews({ reason, metadata }) {
      // Another tab signed in anew: the cookie is another one, and so is its token.
      const isStale = reason === "PAGE_REFUSED" && metadata.cause === "token" && csrf !== "";
      if (isStale) csrf = "";
      return isStale;
    },
  };
}
