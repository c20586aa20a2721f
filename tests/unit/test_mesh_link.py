"""A process's connection to NATS ends when it is told to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services._mesh.settings import NatsSettings
from services._mesh.streams import Link


async def test_a_client_that_loses_a_cancellation_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = tmp_path / "password"
    password.write_text("nobody's")
    link = Link(NatsSettings(url="nats://127.0.0.1:1", user="nobody", password_file=password), "tests", None)
    trying, lost = asyncio.Event(), []

    async def connect(*_given: object, **_more: object) -> None:
        """As nats-py does where a cancellation comes just as an attempt fails."""
        while True:
            trying.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(True)

    monkeypatch.setattr(link.client, "connect", connect)
    running = asyncio.create_task(link.run())
    await trying.wait()
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=10)  # Awaiting it with a time limit would cancel it once more.
    assert lost
    assert done
    assert running.cancelled()
