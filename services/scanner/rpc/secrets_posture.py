"""The RPC of how sealed credentials stand: decode, call, encode."""

from __future__ import annotations

from typing import Any

from recoup.scanner.v1 import secrets_service_pb2 as pb
from recoup.scanner.v1 import secrets_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.times import stamp
from services._mesh.uow import Store
from services.scanner.usecases.secrets_posture import get_secrets_posture


class SecretsRpc(secrets_service_pb2_grpc.SecretsServiceServicer):
    """recoup.scanner.v1.SecretsService."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def GetSecretsPosture(
        self, request: pb.GetSecretsPostureRequest, context: Any
    ) -> pb.GetSecretsPostureResponse:
        now = self._clock.now()
        found = await get_secrets_posture(self._store, now)
        return pb.GetSecretsPostureResponse(
            credentials=[
                pb.CredentialPosture(
                    credential_id=str(row.credential_id),
                    connection_id=str(row.connection_id or ""),
                    created_at=stamp(row.created_at),
                    age_days=max((now - row.created_at).days, 0),
                    kek=bytes(row.kek).decode(errors="replace"),
                    rewrapped_at=stamp(row.rewrapped_at) if row.rewrapped_at else None,
                    problem=row.problem,
                    purpose=row.purpose,
                )
                for row in found.oldest
            ],
            credentials_total=found.total,
            unrotated=found.unrotated,
            stuck=found.stuck,
            keks=[
                pb.KekPosture(kek=kek, credentials=found.by_kek.get(kek, 0), backups=found.backups_by_kek.get(kek, 0))
                for kek in sorted({*found.by_kek, *found.backups_by_kek})
            ],
            purposes=[
                pb.PurposePosture(purpose=purpose, credentials=total, unrotated=unrotated)
                for purpose, (total, unrotated) in sorted(found.by_purpose.items())
            ],
        )
