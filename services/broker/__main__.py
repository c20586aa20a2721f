"""The broker process: `python -m services.broker --config FILE`."""

from __future__ import annotations

import sys

from recoup.broker.v1 import broker_service_pb2, failure_service_pb2
from services._mesh.clock import monotonic
from services._mesh.kms.opening import KeyServices
from services._mesh.process import Mesh, run
from services._mesh.threads import BoundedThreads
from services.broker.clients import Sts
from services.broker.clients_azure import Entra
from services.broker.clients_google import GoogleTokens
from services.broker.config import BrokerSettings
from services.broker.failures import Failures
from services.broker.federation import Issuer
from services.broker.hardening import harden
from services.broker.model.cloud_key import AZURE_PURPOSE, GCP_PURPOSE
from services.broker.model.key_cache import KeyCache
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener
from services.broker.rewrapping import Rewrapper
from services.broker.rpc import BrokerRpc, FailureRpc
from services.broker.signing import Signer
from services.broker.usecases import Desk, TokenGiver

_THREADS = 8


async def compose(mesh: Mesh, settings: BrokerSettings) -> None:
    """Wire the broker together and serve."""
    threads = BoundedThreads(_THREADS, "sts")
    kms = KeyServices(settings.kms, mesh.profile)
    opener = Opener(kms, KeyCache(monotonic))
    mesh.revocations.on_entry = opener.revoked
    failures = Failures(mesh.clock, mesh.metrics)
    opener.on_failure = failures.add
    used = UsedGrants(mesh.clock.wall_seconds())
    federation = settings.federation
    issuer = Issuer.load(federation.issuer, federation.key) if federation else None
    tokens: dict[str, TokenGiver] = {
        AZURE_PURPOSE: Entra(threads, settings.azure, issuer=issuer),
        GCP_PURPOSE: GoogleTokens(threads, settings.google, issuer),
    }
    desk = Desk(opener, Sts(threads, settings.aws), used, mesh.clock, tokens)
    rpc = BrokerRpc(desk, Rewrapper(kms, used, mesh.clock), Signer(opener, used, mesh.clock))
    mesh.follow_revocations()
    try:
        await mesh.serve(
            [
                (broker_service_pb2.DESCRIPTOR.services_by_name["BrokerService"], rpc),
                (failure_service_pb2.DESCRIPTOR.services_by_name["FailureService"], FailureRpc(failures)),
            ]
        )
    finally:
        opener.close()
        kms.close()
        threads.close()


if __name__ == "__main__":
    harden()
    sys.exit(run(BrokerSettings, compose, "Recoup's credential broker"))
