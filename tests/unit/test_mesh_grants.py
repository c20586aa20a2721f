"""A grant is good for one process's work, shown by one certificate, for a few minutes, until it is revoked."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from services._mesh.errors import Denied, Reason
from services._mesh.grants import CredentialScope, Grant, GrantVerifier, read_own_grant, sign_grant
from services._mesh.revocations import Revocation, RevocationKind, Revocations
from services._mesh.tokens import SigningKey
from services._mesh.trust import TrustStore
from tests.support.things import ACME, MovableClock, keys

CREDENTIAL = UUID(int=7)
STATEMENTS = ({"actions": ["ec2:DescribeVolumes"], "resources": ["*"]},)


class Broker:
    """A process that takes grants of the scanner's and of pricing's."""

    def __init__(self, folder: Path) -> None:
        self.clock = MovableClock()
        self.revocations = Revocations(self.clock)
        self.scanner, self.pricing, self.stranger = (keys(folder, n)[0] for n in ("scanner", "pricing", "identity"))
        self.trust = TrustStore(folder)
        self.now = int(time.time())
        scope = CredentialScope(credential_id=CREDENTIAL, purpose="scan", account="1" * 12, statements=STATEMENTS)
        self.grant = Grant(
            issuer="scanner", audience=("scanner-worker", "broker"), presenter="x5t", organization_id=ACME, kind="scan",
            subject="s", job_id=uuid4(), fence=3, number=1, credential=scope, issued_at=self.now,
            expires_at=self.now + 240,
        )  # fmt: skip

    def verify(self, token: Any, presenter: str = "x5t", profile: str = "local") -> Grant:
        issuers = {"scanner": ("scan",), "pricing": ("import_bill",)}
        verifier = GrantVerifier(
            self.trust, self.revocations, self.clock, audience="broker", profile=profile, issuers=issuers
        )
        return verifier.verify(token, presenter)

    def signed(self, key: SigningKey | None = None, **changes: Any) -> str:
        return sign_grant(key or self.scanner, replace(self.grant, **changes))


@pytest.fixture
def at(tmp_path: Path) -> Broker:
    return Broker(tmp_path)


def test_what_was_granted_is_read_as_it_was_signed(at: Broker) -> None:
    found = at.verify(at.signed())
    assert found.credential is not None
    assert (found.organization_id, found.kind, found.jti) == (ACME, "scan", at.grant.jti)
    assert (found.credential.credential_id, found.credential.purpose) == (CREDENTIAL, "scan")


def changed(token: str, change: Callable[[dict[str, Any]], None]) -> str:
    """A token whose claims were changed after it was signed."""
    header, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    change(claims)
    made = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"{header}.{made}.{signature}"


REFUSED: dict[str, Callable[[Broker], Any]] = {
    "none": lambda at: at.verify(None),
    "empty": lambda at: at.verify(""),
    "bytes": lambda at: at.verify(at.signed().encode()),
    "shown by another certificate": lambda at: at.verify(at.signed(), presenter="another"),
    "for another process": lambda at: at.verify(at.signed(audience=("scanner", "identity"))),
    "for nobody": lambda at: at.verify(at.signed(audience=())),
    "of a kind that its issuer doesn't grant": lambda at: at.verify(at.signed(kind="import_bill")),
    "of a kind that nobody grants": lambda at: at.verify(at.signed(kind="root")),
    "of another issuer's kind": lambda at: at.verify(at.signed(at.pricing, issuer="pricing", kind="scan")),
    "in another's name": lambda at: at.verify(at.signed(at.pricing)),
    "of a process that grants nothing": lambda at: at.verify(at.signed(at.stranger, issuer="identity")),
    "for longer than five minutes": lambda at: at.verify(at.signed(expires_at=at.now + 301)),
    "over": lambda at: at.verify(at.signed(issued_at=at.now - 300, expires_at=at.now - 60)),
    "not yet": lambda at: at.verify(at.signed(issued_at=at.now + 120, expires_at=at.now + 240)),
    "local, in production": lambda at: at.verify(at.signed(), profile="production"),
    "with another organization": lambda at: at.verify(changed(at.signed(), lambda c: c.update(org=str(uuid4())))),
    "with another credential": lambda at: at.verify(changed(at.signed(), lambda c: c["cred"].update(id=str(uuid4())))),
    "with more actions": lambda at: at.verify(
        changed(at.signed(), lambda c: c["cred"]["statements"][0]["actions"].append("ec2:DeleteVolume"))
    ),
    "without its signature": lambda at: at.verify(at.signed().rpartition(".")[0] + "."),
}


@pytest.mark.parametrize("attempt", REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_without_a_word_of_why(at: Broker, attempt: Callable[[Broker], Any]) -> None:
    at.verify(at.signed())
    with pytest.raises(Denied) as refused:
        attempt(at)
    assert refused.value.reason == Reason.ERROR_REASON_GRANT_INVALID


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (RevocationKind.ORGANIZATION, str(ACME)),
        (RevocationKind.CREDENTIAL, str(CREDENTIAL)),
        (RevocationKind.TOKEN, ""),
    ],
)
def test_what_is_revoked_takes_its_grants_with_it(at: Broker, kind: RevocationKind, key: str) -> None:
    token = at.signed()
    at.revocations.apply([Revocation(1, kind, str(uuid4()), float(at.now))], 1)
    at.verify(token)
    at.revocations.apply([Revocation(2, kind, key or at.grant.jti, float(at.now))], 2)
    with pytest.raises(Denied):
        at.verify(token)


def test_a_worker_reads_its_own_without_deciding_anything(at: Broker) -> None:
    assert read_own_grant(at.signed(at.stranger, audience=("nobody",))).job_id == at.grant.job_id
