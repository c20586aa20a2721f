"""How the log asks one witness to cosign (C2SP tlog-witness over HTTPS). Deadlines and answers are bounded."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.audit.model.cosigning import WitnessKey
from services.audit.model.notes import parse_size
from services.audit.model.witnessing import CONFLICT, UNPROCESSABLE, Submission

SUBMIT_SECONDS = 10.0
_MAX_ANSWER_BYTES = 64 * 1024


class WitnessFailed(Exception):
    """A witness didn't cosign; says what it answered, or that it didn't."""


@dataclass(frozen=True, slots=True)
class Known:
    """A witness's answer that it last cosigned a tree of another size."""

    size: int


@dataclass(frozen=True, slots=True)
class NotContinued:
    """A witness's answer that what it cosigned last isn't continued: its status, and what it says."""

    status: int
    why: str


class WitnessClient:
    """One witness: its key, and where it answers."""

    def __init__(self, key: WitnessKey, url: str, ca: Path | None) -> None:
        self.key, self._url = key, url.rstrip("/")
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        # Twice a second it would say that it works.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.AsyncClient(verify=context, timeout=SUBMIT_SECONDS, follow_redirects=False)

    async def submit(self, submission: Submission) -> str | Known | NotContinued:
        """The lines of its answer, unchecked, or what it knows instead. Raises WitnessFailed."""
        try:
            async with asyncio.timeout(SUBMIT_SECONDS):
                status, body = await self._post(submission.text().encode())
        except (httpx.HTTPError, TimeoutError) as error:
            raise WitnessFailed(f"it doesn't answer: {type(error).__name__}") from error
        if status == CONFLICT:
            size = parse_size(body.removesuffix("\n"))
            # C2SP asks for the size where that is another one; of another tree of the same size a witness may say none.
            return NotContinued(status, _quoted(status, body)) if size is None else Known(size)
        if status == UNPROCESSABLE:
            return NotContinued(status, _quoted(status, body))
        if status != 200:
            raise WitnessFailed(_quoted(status, body))
        return body

    async def _post(self, content: bytes) -> tuple[int, str]:
        async with self._client.stream("POST", f"{self._url}/add-checkpoint", content=content) as answer:
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES:
                    raise WitnessFailed("its answer is too long")
            return answer.status_code, body.decode("utf-8", "replace")

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def _quoted(status: int, body: str) -> str:
    return f"it answers {status}: {body[:200]!r}"
