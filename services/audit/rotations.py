"""Writes the leaf of a key rotation: the event `audit.key.rotate`, once for each manifest that the signer takes up.

It only records. Which keys are good is said by the manifest, which the offline root signs.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable

from services._mesh.errors import Problem
from services._mesh.ids import PLATFORM
from services._mesh.uow import Store
from services.audit import store
from services.audit.model.events import EventFilter
from services.audit.model.manifest import LOG, Manifest
from services.audit.model.notes import Note, NoteInvalid

log = logging.getLogger(__name__)

ACTION = "audit.key.rotate"
LOOK_SECONDS = 2.0


class Rotations:
    """The task. `writer` is of the schema audit; `manifest` asks the signer."""

    def __init__(self, writer: Store, manifest: Callable[[], Awaitable[str]]) -> None:
        self._writer, self._manifest, self._seen = writer, manifest, ""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:  # Whatever is away comes back, and then the event is written.
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                log.debug("the key manifest will be looked at again: %s", name)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Write the event of the manifest in force, if it is a rotation that has none yet."""
        note = await self._manifest()
        if note == self._seen:
            return
        text = Note.parse(note).text
        rotated = _rotated(text)
        if rotated:
            await self._write(f"keys/{hashlib.sha256(text.encode()).hexdigest()}", rotated)
        self._seen = note

    async def _write(self, target: str, keys: dict[str, str]) -> None:
        async with self._writer.read(PLATFORM) as connection:
            chosen = EventFilter(action=ACTION, target=target)
            if await store.list_events(connection, chosen, None, None, None, 1):
                return
        async with self._writer.begin(PLATFORM) as work:
            work.emit(ACTION, target, keys)


def _rotated(text: str) -> dict[str, str]:
    """The log's keys with their ranges; nothing for the manifest of a log that has only ever had one."""
    try:
        keys = Manifest.parse(text).of(LOG)
    except NoteInvalid:
        return {}
    if len(keys) == 1:
        return {}
    return {hashlib.sha256(key.public).hexdigest(): key.line().strip().partition(" ed25519 ")[2] for key in keys}
