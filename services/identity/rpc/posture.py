"""The RPC of posture: decode, call, encode."""

from __future__ import annotations

from typing import Any

from recoup.identity.v1 import posture_service_pb2 as pb
from recoup.identity.v1 import posture_service_pb2_grpc
from services._mesh.clock import Clock
from services._mesh.uow import Store
from services.identity.usecases import posture
from services.identity.wire import posture as wire

Context = Any


class PostureRpc(posture_service_pb2_grpc.PostureServiceServicer):
    """recoup.identity.v1.PostureService."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def GetPosture(self, request: pb.GetPostureRequest, context: Context) -> pb.GetPostureResponse:
        found = await posture.get_posture(self._store, self._clock.now(), self._clock.wall_now())
        return pb.GetPostureResponse(posture=wire.posture(found))
