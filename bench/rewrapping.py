"""secrets.rewrap_kms_calls: what moving 10,000 credentials to another KEK asks of the key service, by the broker.

The payloads are broken on purpose: a rotation that opened one would fail.
"""

from __future__ import annotations

import time
from uuid import UUID

from bench.measuring import Result
from bench.secrets import KEK, SECRET, InstantKms
from services._mesh.clock import Clock
from services._mesh.context import CallContext, entered
from services._mesh.envelope import parse, seal
from services._mesh.grants import Grant
from services._mesh.kms.interface import Binding, Kek, KeyService, SecretContext
from services.broker.model import base_key
from services.broker.model.replay import UsedGrants
from services.broker.rewrapping import REWRAP, Rewrapper, plan_of

CREDENTIALS, BATCH = 10_000, 32
ORGANIZATION = UUID(int=1)
NEW = Kek(KeyService.AWS, "arn:aws:kms:eu-central-1:111122223333:key/99999999-12ab-34cd-56ef-1234567890ab")


class CountedKms(InstantKms):
    """Counts its calls."""

    def __init__(self) -> None:
        self.wraps = self.unwraps = 0

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """The material."""
        self.wraps += 1
        return material

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """The material."""
        self.unwraps += 1
        return wrapped


async def rewrap_kms_calls() -> Result:
    """Calls of the key service for each of 10,000 credentials, against one unwrap and one wrap."""
    sealed = []
    for number in range(CREDENTIALS):
        context = SecretContext(ORGANIZATION, UUID(int=number), base_key.PURPOSE)
        envelope = await seal(SECRET, context, KEK, InstantKms())
        sealed.append((context.credential_id, envelope[:-1] + bytes([envelope[-1] ^ 1]), base_key.PURPOSE))
    kms = CountedKms()
    rewrapper = Rewrapper(kms, UsedGrants(0.0), Clock())
    began, moved = time.perf_counter(), 0
    for start in range(0, CREDENTIALS, BATCH):
        with entered(_context(start)):
            done = await rewrapper.rewrap_credentials(NEW, sealed[start : start + BATCH])
        moved += sum(parse(each.envelope).kek == NEW for each in done)
    took = time.perf_counter() - began
    assert moved == CREDENTIALS
    calls = (kms.wraps + kms.unwraps) / CREDENTIALS
    facts = {
        "credentials": float(moved),
        "unwraps": float(kms.unwraps),
        "wraps": float(kms.wraps),
        "us each, without the key service's own": round(took / CREDENTIALS * 1e6, 1),
    }
    return Result(
        "secrets.rewrap_kms_calls", calls, "calls", "one unwrap, one wrap", 2.0, calls / 2.0,
        [{"subject": calls, "floor": 2.0}], facts,
    )  # fmt: skip


def _context(number: int) -> CallContext:
    """The call of the worker for a batch, with a grant of its own."""
    grant = Grant(
        issuer="scanner", audience=("broker",), presenter="", organization_id=ORGANIZATION, kind=REWRAP,
        subject=str(UUID(int=2)), job_id=UUID(int=3), fence=number, number=number, plan=plan_of(NEW),
        credential=None, issued_at=int(time.time()), expires_at=int(time.time()) + 60,
    )  # fmt: skip
    return CallContext(
        rpc="bench", peer="scanner-worker", request_id="", trace_id="", deadline=None, organization_id=ORGANIZATION,
        actor="bench", grant=grant,
    )  # fmt: skip
