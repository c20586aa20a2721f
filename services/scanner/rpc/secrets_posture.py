"""The RPC of how sealed credentials stand: decode, call, encode."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from recoup.scanner.v1 import kek_service_pb2, secrets_service_pb2_grpc
from recoup.scanner.v1 import secrets_service_pb2 as pb
from services._mesh.clock import Clock
from services._mesh.times import stamp
from services._mesh.uow import Store
from services.scanner import wire
from services.scanner.clients.failures import FailureCounts
from services.scanner.model.posture import KekStanding
from services.scanner.model.rotation_rules import Deadlines
from services.scanner.usecases.secrets_posture import get_secrets_posture


class SecretsRpc(secrets_service_pb2_grpc.SecretsServiceServicer):
    """recoup.scanner.v1.SecretsService."""

    def __init__(self, store: Store, broker: FailureCounts, clock: Clock) -> None:
        self._store, self._broker, self._clock = store, broker, clock

    async def GetSecretsPosture(
        self, request: pb.GetSecretsPostureRequest, context: Any
    ) -> pb.GetSecretsPostureResponse:
        now = self._clock.now()
        found = await get_secrets_posture(self._store, self._broker, now)
        counted = found.failures
        return pb.GetSecretsPostureResponse(
            credentials=[_credential(row, deadlines, now) for row, deadlines in found.oldest],
            credentials_total=found.total,
            unrotated=found.unrotated,
            stuck=found.stuck,
            keks=[_kek(kek, standing) for kek, standing in sorted(found.by_kek.items())],
            purposes=[
                pb.PurposePosture(purpose=purpose, credentials=total, unrotated=unrotated)
                for purpose, (total, unrotated) in sorted(found.by_purpose.items())
            ],
            rules=wire.rotation_rules(found.rules),
            decrypt_failures=[
                pb.DecryptFailure(reason=each.reason, count=each.count, last_at=stamp(each.last_at))
                for each in (counted.failures if counted else ())
            ],
            decrypt_failures_since=stamp(counted.since) if counted else None,
        )


def _credential(row: Any, deadlines: Deadlines, now: datetime) -> pb.CredentialPosture:
    return pb.CredentialPosture(
        credential_id=str(row.credential_id),
        connection_id=str(row.connection_id or ""),
        created_at=stamp(row.created_at),
        age_days=max((now - row.created_at).days, 0),
        kek=bytes(row.kek).decode(errors="replace"),
        rewrapped_at=stamp(row.rewrapped_at),
        problem=row.problem,
        purpose=row.purpose,
        standing=pb.CredentialStanding.Value(f"CREDENTIAL_STANDING_{_standing(row)}"),
        last_used_at=stamp(row.last_used_at),
        rotated_at=stamp(row.promoted_at),
        remind_at=stamp(deadlines.remind_at),
        refused_from=stamp(deadlines.refused_from),
    )


def _standing(row: Any) -> str:
    if row.connection_id is None:
        return "KEY"
    if row.connection_state == "DISABLED":
        return "DISABLED"
    if row.is_current:
        return "IN_USE"
    return "TRIED" if row.is_tried else "REPLACED"


def _kek(reference: str, standing: KekStanding) -> pb.KekPosture:
    registered = standing.registered
    state = f"KEK_STATE_{registered.state.value if registered else 'UNSPECIFIED'}"
    return pb.KekPosture(
        kek=reference,
        credentials=standing.credentials,
        backups=standing.backups,
        last_used_at=stamp(standing.last_used_at),
        version=registered.version if registered else 0,
        registered_at=stamp(registered.created_at) if registered else None,
        state=kek_service_pb2.KekState.Value(state),
    )
