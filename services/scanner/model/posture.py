"""How an organization's sealed credentials stand. Pure: facts of rows, and nothing of a secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.scanner.model.kek import RegisteredKek
from services.scanner.model.rotation_rules import Deadlines, RotationRules


@dataclass(frozen=True, slots=True)
class DecryptFailure:
    """How often secrets didn't open for one reason, and when last."""

    reason: str
    count: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class DecryptFailures:
    """The counts of one broker since it started."""

    since: datetime
    failures: Sequence[DecryptFailure]


@dataclass(frozen=True, slots=True)
class KekStanding:
    """A KEK: how many credentials are under it, how many backups need it, its last use, and its registration."""

    credentials: int
    backups: int
    last_used_at: datetime | None
    registered: RegisteredKek | None


@dataclass(frozen=True, slots=True)
class SecretsPosture:
    """The oldest credentials' rows, each with its deadlines; counts of all; KEKs by their reference; and by purpose."""

    oldest: Sequence[tuple[Any, Deadlines]]
    total: int
    unrotated: int
    stuck: int
    by_kek: Mapping[str, KekStanding]
    by_purpose: Mapping[str, tuple[int, int]]
    rules: RotationRules
    failures: DecryptFailures | None
