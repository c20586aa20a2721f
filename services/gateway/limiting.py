"""What the edge counts against whom: reads and writes of those it knows, and the attempts of strangers by address."""

from __future__ import annotations

from services._mesh.errors import Exhausted, Reason
from services.gateway.config import EdgeSettings
from services.gateway.exchange import Exchange
from services.gateway.ratelimit import Limiter, Verdict


class Limits:
    """The rate limits of one edge."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._reads = Limiter(settings.reads_a_second, settings.read_burst)
        self._writes = Limiter(settings.writes_a_second, settings.write_burst)
        self._strangers = Limiter(settings.strangers_a_second, settings.stranger_burst)

    def count(self, exchange: Exchange, key: str, *, reads: bool) -> None:
        """Count a call of whoever `key` stands for, and say in the answer what is left. Raises Exhausted."""
        verdict = (self._reads if reads else self._writes).take(key)
        exchange.answer_headers += _rate_headers(verdict)
        if not verdict.allowed:
            raise _limited(exchange, verdict)

    def count_stranger(self, exchange: Exchange) -> None:
        """Count an attempt that wasn't let in."""
        self._strangers.take(exchange.client)

    def require_patience(self, exchange: Exchange) -> None:
        """Raise Exhausted where too many attempts from this address weren't let in lately."""
        verdict = self._strangers.take(exchange.client, cost=0)
        if verdict.remaining == 0:
            raise _limited(exchange, verdict)


def _rate_headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    state = f'"default";r={verdict.remaining};t={max(0, round(verdict.reset_after))}'
    return [(b"ratelimit-policy", f'"default";q={verdict.limit}'.encode()), (b"ratelimit", state.encode())]


def _limited(exchange: Exchange, verdict: Verdict) -> Exhausted:
    seconds = max(1, round(verdict.retry_after + 0.5))
    exchange.answer_headers.append((b"retry-after", str(seconds).encode()))
    return Exhausted(
        Reason.ERROR_REASON_RATE_LIMITED,
        f"Too many calls. Try again in {seconds} s.",
        {"retry_after_seconds": str(seconds)},
    )
