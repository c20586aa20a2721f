"""A flood of session tokens that nobody signed, from a process of its own: `python -m bench.flood` with JSON on stdin.

It prints how many answers a second it got, by status. The tokens are what costs the most to refuse: well formed, of a
key of the issuer's, and each another one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import sys
import time
from collections import Counter
from typing import Any

CONNECTIONS = 16


class Flood:
    """Requests at a rate, or as fast as they are answered (rate 0), over a few connections that stay open. With a rate
    they come in every other window of so many seconds, counted from a moment of the machine's monotonic clock.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self._host, self._port, self._path = given["host"], given["port"], given["path"]
        self._trust = ssl.create_default_context(cafile=given["ca"])
        self._header, self._claims = given["token"].split(".")[:2]
        self._rate, self._window = given["rate"], given["window"]
        self._begins_at, self._ends_at = given["begins_at"], given["begins_at"] + given["seconds"]
        self._due = asyncio.Queue[None](maxsize=10_000)
        self.statuses: Counter[int] = Counter()

    async def run(self) -> dict[str, float]:
        """Flood until it is over; answers a second by status."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pace())
            for _ in range(CONNECTIONS):
                group.create_task(self._connection())
        seconds = time.monotonic() - began
        return {str(status): count / seconds for status, count in self.statuses.items()}

    async def _pace(self) -> None:
        before, owed = time.monotonic(), 0.0
        while self._rate and before < self._ends_at:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            if int((now - self._begins_at) // self._window) % 2:
                owed += (now - before) * self._rate
            before = now
            while owed >= 1.0 and not self._due.full():
                self._due.put_nowait(None)
                owed -= 1.0

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._trust)
        try:
            while time.monotonic() < self._ends_at:
                if self._rate and not await self._is_due():
                    continue
                writer.write(self._request())
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self.statuses[int(head[9:12])] += 1
        finally:
            writer.close()

    async def _is_due(self) -> bool:
        try:
            async with asyncio.timeout(0.2):
                await self._due.get()
        except TimeoutError:
            return False
        return True

    def _request(self) -> bytes:
        signature = base64.urlsafe_b64encode(os.urandom(64)).rstrip(b"=").decode()
        lines = (
            f"GET {self._path} HTTP/1.1",
            f"Host: {self._host}",
            f"Authorization: Bearer {self._header}.{self._claims}.{signature}",
        )
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Flood(json.load(sys.stdin)).run())))
