"""secrets.kms_per_1000_jobs: what 1,000 jobs of one connection ask of the key service, through the broker's own path.

Each job shows a grant of its own, which is verified; the broker opens the credential and gets a session of it from an
emulated AWS STS. They come sixteen at a time, the first of them to an empty cache; in the middle everything that is
kept grows too old. So the count is that of 1,000 jobs within ten minutes. Jobs that are further apart cost one call for
each five minutes in which there is any: the model allows no key that is older.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID, uuid4

from joserfc.jwk import OKPKey
from moto.server import ThreadedMotoServer

from bench.measuring import Result
from recoup.broker.v1 import broker_service_pb2 as pb
from services._mesh.aws_settings import AwsSettings
from services._mesh.clock import Clock
from services._mesh.context import CallContext, entered
from services._mesh.envelope import seal
from services._mesh.grants import CredentialScope, Grant, GrantVerifier, sign_grant
from services._mesh.kms.interface import SecretContext
from services._mesh.revocations import Revocations
from services._mesh.threads import BoundedThreads
from services._mesh.tokens import SigningKey
from services._mesh.trust import TrustStore
from services.broker.clients import Sts
from services.broker.model import base_key
from services.broker.model.key_cache import KEEP_SECONDS, KeyCache
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener
from services.broker.rewrapping import Rewrapper
from services.broker.rpc import BrokerRpc
from services.broker.signing import Signer
from services.broker.usecases import Desk
from tests.support.kms import KEK, Ring
from tests.support.sealing import Counted

JOBS, AT_ONCE, MOST = 1000, 16, 2
ORGANIZATION, CREDENTIAL, ACCOUNT = UUID(int=1), UUID(int=2), "1" * 12
CONTENT = {
    "access_key_id": "AKIA" + "A" * 16,
    "secret_access_key": "s" * 40,
    "external_id": "recoup-bench",
    "roles": {ACCOUNT: {"scan": f"arn:aws:iam::{ACCOUNT}:role/RecoupScan"}},
}


class _Branch:
    """A broker with a file KMS whose calls are counted, and the API's key that grants are signed with."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        sts = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        sts.start()
        stack.callback(sts.stop)
        host, port = sts.get_host_and_port()
        threads = BoundedThreads(8, "sts")
        stack.callback(threads.close)
        ring = Ring(folder)
        stack.callback(ring.threads.close)
        self.seals, self.kms, self.seconds, clock = ring.sealing, Counted(ring.whole), 0.0, Clock()
        self.key = SigningKey(OKPKey.generate_key("Ed25519"), env="local.invalid")
        (folder / "scanner.jwks.json").write_text(json.dumps(self.key.public_jwks()))
        self.verifier = GrantVerifier(
            TrustStore(folder), Revocations(clock), clock, audience="broker", profile="local",
            issuers={"scanner": ["scan"]},
        )  # fmt: skip
        used = UsedGrants(clock.wall_seconds() - 5)
        settings = AwsSettings(endpoint_url=f"http://{host}:{port}")
        opener = Opener(self.kms, KeyCache(lambda: self.seconds))
        desk = Desk(opener, Sts(threads, settings), used, clock)
        self.rpc = BrokerRpc(desk, Rewrapper(self.kms, used, clock), Signer(opener, used, clock))

    async def job(self, sealed: bytes) -> None:
        """One job's grant, taken to a session."""
        grant = self.verifier.verify(sign_grant(self.key, _grant()), "x5t")
        call = CallContext(
            rpc="bench", peer="scanner-worker", request_id="", trace_id="", deadline=None,
            organization_id=grant.organization_id, actor="bench", grant=grant,
        )  # fmt: skip
        with entered(call):
            answer = await self.rpc.OpenCredential(pb.OpenCredentialRequest(sealed_credential=sealed), None)
        assert answer.aws.session_token


async def kms_per_1000_jobs() -> Result:
    """Calls of the key service for 1,000 jobs of one connection; without a cache they would be as many as the jobs."""
    with ExitStack() as stack:
        branch = _Branch(stack, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        context = SecretContext(ORGANIZATION, CREDENTIAL, base_key.PURPOSE)
        sealed = await seal(json.dumps(CONTENT).encode(), context, KEK, branch.seals)
        places = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with places:
                await branch.job(sealed)

        began = time.perf_counter()
        for _ in range(2):
            await asyncio.gather(*(one() for _ in range(JOBS // 2)))
            branch.seconds += KEEP_SECONDS
        took = time.perf_counter() - began
    calls = float(branch.kms.unwraps + branch.kms.wraps)
    assert calls <= MOST, f"{calls} calls of the key service"
    facts = {"jobs": float(JOBS), "at once": float(AT_ONCE), "ms each, with the emulated STS": took / JOBS * 1e3}
    return Result(
        "secrets.kms_per_1000_jobs", calls, "calls", "one for each five minutes", float(MOST), calls / MOST,
        [{"subject": calls, "floor": float(MOST)}], facts,
    )  # fmt: skip


def _grant() -> Grant:
    now = int(time.time())
    scope = CredentialScope(
        credential_id=CREDENTIAL, purpose="scan", account=ACCOUNT,
        statements=({"actions": ["ec2:DescribeVolumes"], "resources": ["*"]},),
    )  # fmt: skip
    return Grant(
        issuer="scanner", audience=("broker",), presenter="x5t", organization_id=ORGANIZATION, kind="scan",
        subject=str(UUID(int=3)), job_id=uuid4(), fence=1, number=1, credential=scope, issued_at=now,
        expires_at=now + 240,
    )  # fmt: skip
