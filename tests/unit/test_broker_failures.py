"""What didn't open is counted: by reason for everybody, and for the organizations that failed last."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from recoup.broker.v1 import failure_service_pb2 as pb
from services._mesh.clock import Clock
from services._mesh.envelope import seal
from services._mesh.errors import Problem
from services._mesh.kms.interface import EnvelopeBroken
from services._mesh.metrics import Metrics
from services.broker import failures as counting
from services.broker.failures import Failures
from services.broker.model.key_cache import KeyCache
from services.broker.opening import Opener
from services.broker.rpc import FailureRpc
from tests.support.kms import KEK, Ring, context


async def test_each_failure_is_counted_by_its_reason_for_its_organization(tmp_path: Path) -> None:
    ring, metrics, clock = Ring(tmp_path), Metrics(), Clock()
    failures, opener = Failures(clock, metrics), Opener(ring.whole, KeyCache(clock.wall_seconds))
    opener.on_failure = failures.add
    whole = context()
    sealed = await seal(b"secret", whole, KEK, ring.sealing)
    await opener.open(sealed, whole)
    assert failures.of(whole.organization_id) == {}
    assert 'recoup_broker_decrypt_failures{reason="CREDENTIAL_UNOPENABLE"} 0' in metrics.render()
    for _ in range(2):
        with pytest.raises(EnvelopeBroken):
            await opener.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), whole)
    for state in ("DISABLED", "TIMEOUT"):
        ring.set_states({KEK.reference: state})
        opener.close()
        with pytest.raises(Problem):
            await opener.open(sealed, whole)
    answer = await FailureRpc(failures).GetFailures(
        pb.GetFailuresRequest(organization_id=str(whole.organization_id)), None
    )
    counted = {each.reason: each.count for each in answer.failures}
    assert counted == {"CREDENTIAL_UNOPENABLE": 2, "KMS_KEY_UNUSABLE": 1, "KMS_UNAVAILABLE": 1}
    assert 'recoup_broker_decrypt_failures{reason="CREDENTIAL_UNOPENABLE"} 2' in metrics.render()
    other = await FailureRpc(failures).GetFailures(pb.GetFailuresRequest(organization_id=str(uuid4())), None)
    assert not other.failures
    assert other.since == answer.since
    ring.threads.close()


def test_of_many_organizations_the_last_are_kept_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MAX_ORGANIZATIONS", 3)
    metrics = Metrics()
    failures, ids = Failures(Clock(), metrics), [uuid4() for _ in range(4)]
    for each in (*ids[:3], ids[0], ids[3]):
        failures.add(each, "KMS_UNAVAILABLE")
    assert [bool(failures.of(each)) for each in ids] == [True, False, True, True]
    assert failures.of(ids[0])["KMS_UNAVAILABLE"].count == 2
    assert 'recoup_broker_decrypt_failures{reason="KMS_UNAVAILABLE"} 5' in metrics.render()
