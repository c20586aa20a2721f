"""What a check asks of Azure or Google Cloud with a token: which scopes there are, and what is allowed in one.

In bounded threads, with deadlines, at the hosts that are configured; without redirects, and with bounded answers.
Nothing is changed, and nothing but what is asked about is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from services._mesh.clouds import CloudToken
from services.scanner.model.cloud import CloudScope

CALL_SECONDS, CONNECT_SECONDS, READ_SECONDS = 30.0, 4.0, 12.0
MAX_PAGES, MAX_BYTES, MAX_SCOPES = 20, 4 * 1024 * 1024, 500


class CloudFailed(Exception):
    """The cloud didn't give what was asked: "REFUSED", or "UNREACHABLE" where it may later; and its code."""

    def __init__(self, outcome: str, code: str) -> None:
        super().__init__(f"{outcome}: {code}")
        self.outcome, self.code = outcome, code


class CloudReader(Protocol):
    """One cloud."""

    async def scopes(self, token: CloudToken) -> list[CloudScope]:
        """The subscriptions or projects that we see, the first ones. Raises CloudFailed."""

    async def probe(self, token: CloudToken, wanted: Sequence[str]) -> Mapping[str, bool]:
        """Whether each permission is allowed in the token's scope. Raises CloudFailed where we may not even ask."""


def failed(status: int, code: str) -> CloudFailed:
    """What an answer's status means."""
    if status == 429 or status >= 500:
        return CloudFailed("UNREACHABLE", code or str(status))
    return CloudFailed("REFUSED", code or str(status))
