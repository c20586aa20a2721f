"""The scanner's API process: `python -m services.scanner --config FILE`."""

from __future__ import annotations

import sys

from recoup.scanner.v1 import (
    connecting_service_pb2,
    kek_service_pb2,
    key_service_pb2,
    rotation_service_pb2,
    scanner_service_pb2,
    sealing_service_pb2,
    secrets_service_pb2,
)
from services._mesh.job_tasks import own_jobs
from services._mesh.kms.opening import KeyServices, Sealer
from services._mesh.pages import PageTokens
from services._mesh.process import Mesh, run
from services._mesh.producing import produce
from services.scanner.backup_watch import BackupWatch
from services.scanner.clients.failures import FailureCounts
from services.scanner.clients.peers import Exceptions, Identity
from services.scanner.clients.rewrapping import Wrapper
from services.scanner.config import ScannerSettings
from services.scanner.model.rewrapping import REWRAP
from services.scanner.model.rotation import ROTATE
from services.scanner.rotating import give_up
from services.scanner.rpc.connecting import ConnectingRpc
from services.scanner.rpc.keks import KekRpc
from services.scanner.rpc.keys import KeyRpc
from services.scanner.rpc.rotation import RotationRpc
from services.scanner.rpc.scanner import ScannerRpc
from services.scanner.rpc.sealing import SealingRpc
from services.scanner.rpc.secrets_posture import SecretsRpc
from services.scanner.secrets_watch import watch_secrets
from services.scanner.usecases.connecting import KeyRules
from services.scanner.usecases.credentials import REVOKE, CredentialPolicies
from services.scanner.usecases.keks import Keks
from services.scanner.usecases.keys import KeyPolicies
from services.scanner.usecases.kinds import CHECK, DELIVER, SCAN, VERIFY
from services.scanner.usecases.policies import Policies
from services.scanner.usecases.rewrapping import Rewrapping
from services.scanner.usecases.rotating import RotationPolicies


async def compose(mesh: Mesh, settings: ScannerSettings) -> None:
    """Wire the scanner together and serve."""
    store = mesh.store("scanner")
    mesh.follow_revocations()
    produce(mesh, "scanner", store)
    mesh.task(BackupWatch(store, mesh.metrics).run(), "backup watch")
    identity = Identity(mesh.channels.to("identity"))
    policies = Policies(store, identity)
    credentials, rewrapping = CredentialPolicies(store, mesh.clock), Rewrapping(store)
    work = {
        VERIFY: policies.verify,
        CHECK: policies.check,
        SCAN: policies.scan,
        REVOKE: credentials.revoke,
        ROTATE: RotationPolicies(store, identity).rotate,
        REWRAP: rewrapping.policy,
        DELIVER: KeyPolicies(store, identity, mesh.clock).deliver,
    }
    office = await own_jobs(mesh, "scanner", store, work, on_dead=give_up, workers={DELIVER: "notifier"})
    kms = KeyServices(settings.kms, mesh.profile)
    pages = PageTokens.from_file(settings.scanner.page_key)
    exceptions = Exceptions(mesh.channels.to("identity"), mesh.exchange())
    keks = Keks(store, kms, settings.kms.own_kek, Wrapper(mesh.channels.to("broker")))
    rules = KeyRules(
        settings.scanner.aws_principal,
        settings.scanner.static_keys == "allowed",
        settings.scanner.federation_issuer or "",
    )
    sealer = Sealer(kms, keks.kek_in_use)
    rpc = ScannerRpc(store, office.planner, sealer, pages, exceptions, rules)
    rotation = RotationRpc(store, office.planner, sealer, rules)
    keys = KeyRpc(store, office.planner, sealer, pages)
    connecting = ConnectingRpc(store, office.planner, rules)
    secrets = SecretsRpc(store, FailureCounts(mesh.channels.to("broker")), mesh.clock)
    watch_secrets(mesh, store)
    try:
        await mesh.serve(
            [
                (scanner_service_pb2.DESCRIPTOR.services_by_name["ScannerService"], rpc),
                (connecting_service_pb2.DESCRIPTOR.services_by_name["ConnectingService"], connecting),
                (kek_service_pb2.DESCRIPTOR.services_by_name["KekService"], KekRpc(store, keks, office.planner, pages)),
                (rotation_service_pb2.DESCRIPTOR.services_by_name["RotationService"], rotation),
                (key_service_pb2.DESCRIPTOR.services_by_name["KeyService"], keys),
                (sealing_service_pb2.DESCRIPTOR.services_by_name["SealingService"], SealingRpc(store, rewrapping)),
                (secrets_service_pb2.DESCRIPTOR.services_by_name["SecretsService"], secrets),
                office.service,
            ]
        )
    finally:
        kms.close()


if __name__ == "__main__":
    sys.exit(run(ScannerSettings, compose, "Recoup's scanner"))
