"""Webhooks are signed by the broker, under a grant for that alone; what is sealed for one purpose serves no other."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from recoup.broker.v1.broker_service_pb2 import SignWebhookRequest
from services._mesh.clock import Clock, monotonic
from services._mesh.context import entered
from services._mesh.envelope import seal
from services._mesh.errors import Denied, Invalid, Problem, Unavailable, WrongState
from services._mesh.grants import CredentialScope, Grant, GrantVerifier, sign_grant
from services._mesh.kms.interface import SecretContext
from services._mesh.revocations import Revocation, RevocationKind, Revocations
from services._mesh.validation import RequestValidator
from services.broker import usecases
from services.broker.model.cloud_key import AZURE_PURPOSE
from services.broker.model.key_cache import KeyCache
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener
from services.broker.signing import Message, Signer, signature
from services.broker.usecases import Desk
from tests.support.kms import KEK, Ring
from tests.support.things import ACME, GLOBEX, context, keys

# Whatever it is sealed for, it reads as each of them: an organization may give a key that looks like anything.
KEY = json.dumps({
    "access_key_id": "", "secret_access_key": "", "external_id": "", "roles": {"1": {"scan": "arn", "act": "arn"}},
    "public": {}, "secret": {}, "scopes": ["1"],
}).encode()  # fmt: skip
OWN, OTHER = UUID(int=7), UUID(int=8)


def test_it_signs_as_standard_webhooks_does() -> None:
    """The example that Standard Webhooks' own libraries are tested with."""
    key = bytearray(base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    message = Message("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature(key, message) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


class Counter:
    """The broker's parts, and grants as the scanner would have signed them."""

    def __init__(self, folder: Path) -> None:
        self.clock, self.ring = Clock(), Ring(folder)
        self.key, trust = keys(folder, "scanner")
        self.revocations = Revocations(self.clock)
        self.verifier = GrantVerifier(
            trust, self.revocations, self.clock, audience="broker", profile="local",
            issuers={"scanner": ["deliver_webhook", "scan", "execute", "check_connection"]},
        )  # fmt: skip
        used = UsedGrants(self.clock.wall_seconds() - 5)
        opener = Opener(self.ring.whole, KeyCache(monotonic))
        unused: Any = None
        self.signer = Signer(opener, used, self.clock)
        self.desk = Desk(opener, unused, used, self.clock, {AZURE_PURPOSE: unused})

    def grant(self, kind: str = "deliver_webhook", purpose: str = "sign", **more: Any) -> str:
        now = int(time.time())
        statements = more.pop("statements", ({"actions": ["ec2:DescribeVolumes"], "resources": ["*"]},))
        scope = CredentialScope(
            credential_id=more.pop("credential_id", OWN), purpose=purpose, account="1", statements=statements
        )
        facts: dict[str, Any] = {
            "issuer": "scanner", "audience": ("broker",), "presenter": "x5t", "organization_id": ACME, "kind": kind,
            "subject": "s", "job_id": uuid4(), "fence": 1, "number": 1, "credential": scope, "issued_at": now,
            "expires_at": now + 240,
        }  # fmt: skip
        return sign_grant(self.key, Grant(**{**facts, **more}))

    def message(self, **more: Any) -> Message:
        return Message(**{"webhook_id": "msg_1", "timestamp": int(time.time()), "body": b"{}", **more})

    async def sign(self, grant: str, sealed: bytes, message: Message | None = None, presenter: str = "x5t") -> str:
        found = self.verifier.verify(grant, presenter)
        with entered(context(found.organization_id, peer="notifier", grant=found)):
            return await self.signer.sign_webhook(sealed, message or self.message())

    async def open(self, grant: str, sealed: bytes) -> object:
        found = self.verifier.verify(grant, "x5t")
        with entered(context(found.organization_id, peer="scanner-worker", grant=found)):
            return await usecases.open_credential(self.desk, sealed)

    async def sealed(self, purpose: str = "webhook.key", key_id: UUID = OWN, organization: UUID = ACME) -> bytes:
        return await seal(KEY, SecretContext(organization, key_id, purpose), KEK, self.ring.sealing)


@pytest.fixture
def counter(tmp_path: Path) -> Any:
    made = Counter(tmp_path)
    yield made
    made.ring.threads.close()


async def test_a_grant_signs_one_message_with_the_key_that_it_names(counter: Counter) -> None:
    sealed, message, grant = await counter.sealed(), counter.message(), counter.grant()
    assert await counter.sign(grant, sealed, message) == signature(bytearray(KEY), message)
    with pytest.raises(Denied):  # Once.
        await counter.sign(grant, sealed)
    with pytest.raises(Denied):  # By whom it was given to.
        await counter.sign(counter.grant(), sealed, presenter="another")
    late = counter.grant()
    counter.revocations.apply([Revocation(1, RevocationKind.CREDENTIAL, str(OWN), time.time())], 1)
    with pytest.raises(Denied):  # And not when the key is revoked.
        await counter.sign(late, sealed)


SWAPS: tuple[tuple[str, Callable[[Counter], Any], type[Problem]], ...] = (
    ("a scan's grant signs", lambda c: _signed(c, "webhook.key", kind="scan", purpose="scan"), Denied),
    ("a scan's kind signs", lambda c: _signed(c, "webhook.key", kind="scan", purpose="sign"), Denied),
    ("a scan's purpose signs", lambda c: _signed(c, "webhook.key", purpose="scan"), Denied),
    ("an act's grant signs", lambda c: _signed(c, "webhook.key", kind="execute", purpose="act"), Denied),
    ("a base key signs", lambda c: _signed(c, "aws.base_key"), WrongState),
    ("an AI key signs", lambda c: _signed(c, "ai.key"), WrongState),
    ("a webhook key is a credential", lambda c: _opened(c, "webhook.key", kind="scan", purpose="scan"), WrongState),
    ("an AI key is a credential", lambda c: _opened(c, "ai.key", kind="scan", purpose="scan"), WrongState),
    ("an Azure credential signs", lambda c: _signed(c, "azure.credential"), WrongState),
    (
        "a webhook key is an Azure credential",
        lambda c: _opened(c, "webhook.key", kind="check_connection", purpose="azure.check", statements=()),
        WrongState,
    ),
    (
        "a base key is an Azure credential",
        lambda c: _opened(c, "aws.base_key", kind="check_connection", purpose="azure.check", statements=()),
        WrongState,
    ),
    ("a delivery's grant opens", lambda c: _opened(c, "aws.base_key"), Denied),
    ("a delivery's grant opens a key", lambda c: _opened(c, "webhook.key"), Denied),
)


async def _signed(counter: Counter, purpose_of_sealed: str, **grant: Any) -> str:
    return await counter.sign(counter.grant(**grant), await counter.sealed(purpose_of_sealed))


async def _opened(counter: Counter, purpose_of_sealed: str, **grant: Any) -> object:
    return await counter.open(counter.grant(**grant), await counter.sealed(purpose_of_sealed))


@pytest.mark.parametrize(("attempt", "refusal"), [each[1:] for each in SWAPS], ids=[each[0] for each in SWAPS])
async def test_no_purpose_serves_for_another(
    counter: Counter, attempt: Callable[[Counter], Any], refusal: type[Problem]
) -> None:
    with pytest.raises(refusal):
        await attempt(counter)


@pytest.mark.parametrize("foreign", [{"key_id": OTHER}, {"organization": GLOBEX}])
async def test_another_s_envelope_is_not_opened_under_this_grant(counter: Counter, foreign: dict[str, Any]) -> None:
    """The context is the grant's, whatever row the envelope comes from."""
    with pytest.raises(WrongState):
        await counter.sign(counter.grant(), await counter.sealed(**foreign))


@pytest.mark.parametrize("seconds", [-301, 600, 86_400])
async def test_no_message_is_signed_for_another_time(counter: Counter, seconds: int) -> None:
    message, grant = counter.message(timestamp=int(time.time()) + seconds), counter.grant()
    with pytest.raises(Invalid):
        await counter.sign(grant, await counter.sealed(), message)
    assert await counter.sign(grant, await counter.sealed())  # What was refused for its request used nothing up.


@pytest.mark.parametrize(
    "wrong",
    [
        {"body": b"x" * 65_537},
        {"webhook_id": ""},
        {"webhook_id": "msg.1"},
        {"webhook_id": "m" * 65},
        {"sealed_key": b""},
    ],
    ids=lambda each: next(iter(each)),
)
def test_what_is_signed_is_bounded(wrong: dict[str, Any]) -> None:
    """An id with a full stop could be read as another id and time."""
    given: dict[str, Any] = {"sealed_key": b"e", "webhook_id": "msg_1", "timestamp": 1, "body": b"x" * 65_536}
    validator = RequestValidator()
    validator.check(SignWebhookRequest(**given))
    with pytest.raises(Invalid):
        validator.check(SignWebhookRequest(**{**given, **wrong}))


@pytest.mark.parametrize("state", ["DISABLED", "DENIED", "MISSING", "TIMEOUT"])
async def test_a_key_service_that_does_not_unwrap_signs_nothing(counter: Counter, state: str) -> None:
    sealed = await counter.sealed()
    counter.ring.set_states({KEK.reference: state})
    with pytest.raises((Unavailable, WrongState)) as refused:
        await counter.sign(counter.grant(), sealed)
    assert refused.value.metadata["cause"] == state
    counter.ring.set_states({})
    assert await counter.sign(counter.grant(), sealed)
