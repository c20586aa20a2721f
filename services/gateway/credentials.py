"""The credential that a call shows: a bearer token, or the cookie of a browser session that a page of ours sends.

A bearer token wins: a page that shows one chose to, and no other page can, whereas the browser adds the cookie by
itself (so that who signs in anew needn't sign out first).
"""

from __future__ import annotations

import hmac

from services._mesh.descriptors import Effect, Scope
from services._mesh.errors import Denied, Reason, Unauthenticated
from services.gateway import cookies
from services.gateway.bindings import Route
from services.gateway.exchange import Exchange
from services.gateway.limiting import Limits
from services.gateway.origins import Origins
from services.gateway.passports import PassportOffice
from services.gateway.session import NO_SESSION, Session

_MOST_TOKEN = 8192
# What a browser says of a page of this very origin, or of an address that somebody typed.
_FROM_HERE = ("", "same-origin", "none")


class Credentials:
    """Reads them, and counts them before anybody asks what they are worth."""

    def __init__(self, office: PassportOffice, limits: Limits, origins: Origins) -> None:
        self._office, self._limits, self._origins = office, limits, origins

    def of(self, exchange: Exchange, route: Route) -> Session:
        """The credential, where the route needs one. Raises Unauthenticated, Denied, Exhausted."""
        reads = route.rule.effect is Effect.READ
        if route.rule.scope is Scope.PUBLIC:
            self._limits.require_patience(exchange)
            self._limits.count_address(exchange, reads=reads)
            return NO_SESSION
        token = _bearer(exchange)
        if not token:
            token = self._browser_session(exchange, reads=reads)
        elif cookies.sets_cookie(route.rule.descriptor.output_type):
            self._require_own_page(exchange, reads=True)  # Nobody signs a browser in from somebody else's page.
        session = Session.of(token)
        self._limits.require_patience(exchange, session, known=self._office.knows(session))
        self._limits.count_credential(exchange, session, reads=reads)
        return session

    def _browser_session(self, exchange: Exchange, *, reads: bool) -> str:
        session = cookies.session_of(exchange)
        if not session:
            raise Unauthenticated(
                Reason.ERROR_REASON_CREDENTIAL_MISSING, "Send a session token: Authorization: Bearer <token>."
            )
        reads = reads and exchange.method in ("GET", "HEAD")
        self._require_own_page(exchange, reads=reads)
        expected = cookies.csrf_token(session)
        if reads:
            exchange.answer_headers.append((cookies.CSRF_HEADER.encode(), expected.encode()))
        elif not hmac.compare_digest(exchange.headers.get(cookies.CSRF_HEADER, "").encode(), expected.encode()):
            raise _page_refused("token", "Send the header Recoup-Csrf, as an answer to GET of this session said it.")
        return session

    def _require_own_page(self, exchange: Exchange, *, reads: bool) -> None:
        """Browsers say where each change comes from; of what only reads, they may say that it is from here, or nothing,
        and then the cookie itself isn't sent from elsewhere (SameSite).
        """
        if "origin" in exchange.headers:
            is_own = self._origins.is_own(exchange)
        else:
            is_own = reads and exchange.headers.get("sec-fetch-site", "") in _FROM_HERE
        if not is_own:
            raise _page_refused("origin", "A page of another origin may not use this browser's session.")


def shown(exchange: Exchange) -> Session:
    """What was shown, good or not, so that the same again is known."""
    return Session.of(exchange.headers.get("authorization", "").partition(" ")[2] or cookies.session_of(exchange))


def _bearer(exchange: Exchange) -> str:
    """The bearer token; nothing where no credential is shown so. Raises Unauthenticated."""
    header = exchange.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    # A cookie's text is no bearer token: whoever has it took it from where no script reads it.
    is_good = scheme.lower() == "bearer" and 0 < len(token) <= _MOST_TOKEN and not token.startswith(cookies.PREFIX)
    if header and not is_good:
        raise Unauthenticated(
            Reason.ERROR_REASON_CREDENTIAL_INVALID,
            "The session token can't be accepted. Send one of at most 8192 bytes: Authorization: Bearer <token>.",
        )
    return token


def _page_refused(cause: str, message: str) -> Denied:
    return Denied(Reason.ERROR_REASON_PAGE_REFUSED, message, {"cause": cause})
