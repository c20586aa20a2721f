"""What the edge counts against whom: calls by credential before anybody looks at it, then by actor and by organization;
by address where no credential is needed; and the attempts of strangers.

Whoever makes up credentials, or organizations to ask for, to be counted anew is counted as a stranger for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from ipaddress import IPv4Address, ip_address, ip_network
from math import ceil

from services._mesh.clock import Clock
from services._mesh.errors import Exhausted, Reason
from services._mesh.passports import Passport
from services.gateway.bucket import Bucket
from services.gateway.config import EdgeSettings
from services.gateway.exchange import Exchange
from services.gateway.ratelimit import Limiter, Verdict
from services.gateway.session import NO_SESSION, Session
from services.gateway.sharing import SharedLimiter

# Counts a call under a key, if it may go on.
_Count = Callable[[str], Awaitable[Verdict]]


class Limits:
    """The rate limits of one edge; reads and writes have budgets of their own.

    With a bucket, those of verified actors and organizations are shared with the other gateways. What comes before
    anybody is verified isn't: whoever makes up credentials would fill the bucket with them.
    """

    def __init__(self, settings: EdgeSettings, bucket: Bucket | None = None) -> None:
        # By whether it reads: of one credential, actor or address; and of a whole organization.
        self._own = {
            True: Limiter(settings.reads_a_second, settings.read_burst),
            False: Limiter(settings.writes_a_second, settings.write_burst),
        }
        organizations = {
            True: Limiter(settings.organization_reads_a_second, settings.organization_read_burst),
            False: Limiter(settings.organization_writes_a_second, settings.organization_write_burst),
        }
        self._actors = _counts("actors", self._own, bucket, settings.gateways)
        self._organizations = _counts("organizations", organizations, bucket, settings.gateways)
        self._strangers = Limiter(settings.strangers_a_second, settings.stranger_burst)

    def count_credential(self, exchange: Exchange, session: Session, *, reads: bool) -> None:
        """Count a call under a credential, whatever it is worth and is for. Raises Exhausted."""
        _charge(exchange, "credential", self._own[reads].take(f"credential {session.digest}"))

    def count_address(self, exchange: Exchange, *, reads: bool, prefix: str = "") -> None:
        """Count a call that needs no credential; below each `prefix` by itself. Raises Exhausted."""
        _charge(exchange, "address", self._own[reads].take(f"address {prefix} {place_of(exchange.client)}"))

    async def count_verified(self, exchange: Exchange, passport: Passport, *, reads: bool) -> None:
        """Count a call of whoever identity says it is, however many credentials they have, and of their organization.

        Raises Exhausted.
        """
        organization_id = str(passport.organization_id)
        _charge(exchange, "actor", await self._actors[reads](f"actor {organization_id} {passport.actor}"))
        if passport.organization_id is not None:
            _charge(exchange, "organization", await self._organizations[reads](organization_id))

    def count_stranger(self, exchange: Exchange, session: Session = NO_SESSION) -> None:
        """Count an attempt that wasn't let in: against the credential that tried it, and once against its address.

        What is tried again and again with one credential tells nobody anything: a program with a session that has ended
        doesn't keep all others of its address from signing in.
        """
        if session.token:
            verdict = self._strangers.take(f"credential {session.digest}")
            if verdict.remaining < verdict.limit - 1:
                return
        self._strangers.take(f"address {place_of(exchange.client)}")

    def require_patience(self, exchange: Exchange, session: Session = NO_SESSION, *, known: bool = False) -> None:
        """Raise Exhausted after too many attempts that weren't let in: with this credential, or, of one that wasn't let
        in before, from this address. People behind one address don't pay for a stranger among them.
        """
        keys = [f"credential {session.digest}"] if session.token else []
        keys += [] if known else [f"address {place_of(exchange.client)}"]
        for key in keys:
            verdict = self._strangers.look(key)
            if verdict is not None and not verdict.allowed:
                _charge(exchange, "attempts", verdict)


def _counts(name: str, alone: Mapping[bool, Limiter], bucket: Bucket | None, gateways: int) -> Mapping[bool, _Count]:
    """How reads and writes are counted: by these limiters, or by what all gateways share of the same rate and burst."""
    if bucket is None:
        return {reads: _counted_by(limiter) for reads, limiter in alone.items()}
    wall = Clock().wall_seconds
    return {
        reads: SharedLimiter(
            bucket, f"{name}.{'reads' if reads else 'writes'}", limiter.rate, limiter.burst, gateways, wall
        ).take
        for reads, limiter in alone.items()
    }


def _counted_by(limiter: Limiter) -> _Count:
    async def count(key: str) -> Verdict:
        return limiter.take(key)

    return count


def place_of(client: str) -> str:
    """The address; of IPv6 the network that one subscriber has, since they have all addresses in it."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return client
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ip_network((address, 64), strict=False))


def _charge(exchange: Exchange, policy: str, verdict: Verdict) -> None:
    _say(exchange, policy, verdict)
    if not verdict.allowed:
        exchange.refused_by = policy
        raise _limited(exchange, verdict)


def _say(exchange: Exchange, policy: str, verdict: Verdict) -> None:
    """Each limit that was asked is an item of the two fields' lists (draft-ietf-httpapi-ratelimit-headers)."""
    state = f'"{policy}";r={verdict.remaining};t={max(0, round(verdict.reset_after))}'
    exchange.answer_headers += [_policy(policy, verdict.limit, verdict.window), (b"ratelimit", state.encode())]


@cache
def _policy(policy: str, limit: int, window: float) -> tuple[bytes, bytes]:
    """The same for all calls of a limit, of which an edge has a few."""
    return b"ratelimit-policy", f'"{policy}";q={limit};w={max(1, round(window))}'.encode()


def _limited(exchange: Exchange, verdict: Verdict) -> Exhausted:
    seconds = max(1, ceil(verdict.retry_after))
    exchange.answer_headers.append((b"retry-after", str(seconds).encode()))
    return Exhausted(
        Reason.ERROR_REASON_RATE_LIMITED,
        f"Too many calls. Try again in {seconds} s.",
        {"retry_after_seconds": str(seconds)},
    )
