"""How sealed credentials stand: facts of their rows. Nothing here sees more of a secret than its age and its KEK."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from services._mesh.context import current
from services._mesh.uow import Store
from services.scanner.clients.failures import FailureCounts
from services.scanner.model.posture import KekStanding, SecretsPosture
from services.scanner.model.rotation_rules import REMIND_AFTER_DAYS, Deadlines, RotationRules
from services.scanner.store import backups, keks, rewrapping, rotation_rules
from services.scanner.store import secrets_posture as store
from services.scanner.usecases.keks import MAX_KEKS

MOST = 500


async def get_secrets_posture(reader: Store, broker: FailureCounts, now: datetime) -> SecretsPosture:
    """How the organization's credentials stand at `now`."""
    failures = await broker.find(current().organization())
    async with reader.read() as connection:
        rules = await rotation_rules.find_rules(connection)
        by_kek, in_backups = await rewrapping.count_by_kek(connection), await backups.count_by_kek(connection)
        uses = await store.last_uses_by_kek(connection)
        named = {each.named.kek().reference: each for each in await keks.list_keks(connection, None, MAX_KEKS)}
        before = now - timedelta(days=rules.remind_after_days or REMIND_AFTER_DAYS)
        by_purpose = await store.count_by_purpose(connection, before)
        stuck = await store.count_stuck(connection)
        oldest = await store.list_oldest(connection, MOST)
    standings = {
        each: KekStanding(by_kek.get(each, 0), in_backups.get(each, 0), uses.get(each), named.get(each))
        for each in {*by_kek, *in_backups, *named}
    }
    unrotated = sum(count for _, count in by_purpose.values())
    return SecretsPosture(
        [(row, _deadlines(rules, row)) for row in oldest],
        sum(by_kek.values()),
        unrotated,
        stuck,
        standings,
        by_purpose,
        rules,
        failures,
    )


def _deadlines(rules: RotationRules, row: Any) -> Deadlines:
    """Those of a connection's credential that is in use: no other is opened for anybody but its rotation."""
    if not row.is_current or row.connection_state == "DISABLED":
        return Deadlines(None, None)
    return Deadlines.of(rules, row.holds_secret, row.created_at)
