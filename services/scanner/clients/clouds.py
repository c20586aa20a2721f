"""What a check asks of Azure or Google Cloud with a token: which scopes there are, and what is allowed in one.

In bounded threads, with deadlines, at the hosts that are configured; without redirects, and with bounded answers.
Nothing is changed, and nothing but what is asked about is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from services._mesh.clouds import CloudToken
from services.scanner.model.cloud import CloudScope

CALL_SECONDS, CONNECT_SECONDS, READ_SECONDS = 30.0, 4.0, 12.0
MAX_PAGES, MAX_SCOPES = 20, 500
_MAX_BYTES, _MAX_CODE = 4 * 1024 * 1024, 64


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


def read_document(status: int, pieces: Iterable[bytes], code_of: Callable[[Any], str]) -> Mapping[str, Any]:
    """An answer's JSON object; `code_of` finds the cloud's own code in what says no. Raises CloudFailed."""
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > _MAX_BYTES:
            raise CloudFailed("UNREACHABLE", "AnswerTooLarge")
    try:
        document = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        document = None
    if status != 200:
        error = document.get("error") if isinstance(document, dict) else None
        code = code_of(error)[:_MAX_CODE] if isinstance(error, dict) else ""
        raise CloudFailed("UNREACHABLE" if status == 429 or status >= 500 else "REFUSED", code or str(status))
    if not isinstance(document, dict):
        raise CloudFailed("UNREACHABLE", "AnswerUnreadable")
    return document
