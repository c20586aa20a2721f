"""How sealed credentials stand: facts of their rows. Nothing here sees more of a secret than its age and its KEK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services._mesh.uow import Store
from services.scanner.store import backups, rewrapping

UNROTATED_AFTER = timedelta(days=90)
MOST = 500


@dataclass(frozen=True, slots=True)
class SecretsPosture:
    """The oldest credentials' rows, counts of all; credentials and backups by the KEK's reference; and by purpose."""

    oldest: Sequence[Any]
    total: int
    unrotated: int
    stuck: int
    by_kek: Mapping[str, int]
    backups_by_kek: Mapping[str, int]
    by_purpose: Mapping[str, tuple[int, int]]


async def get_secrets_posture(reader: Store, now: datetime) -> SecretsPosture:
    """How the organization's credentials stand at `now`."""
    async with reader.read() as connection:
        by_kek, in_backups = await rewrapping.count_by_kek(connection), await backups.count_by_kek(connection)
        unrotated, stuck = await rewrapping.count_standing(connection, now - UNROTATED_AFTER)
        by_purpose = await rewrapping.count_by_purpose(connection, now - UNROTATED_AFTER)
        oldest = await rewrapping.list_oldest(connection, MOST)
    return SecretsPosture(oldest, sum(by_kek.values()), unrotated, stuck, by_kek, in_backups, by_purpose)
