"""The envelope, byte by byte; what purposes may ask for; single use."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services._mesh.envelope import EnvelopeBroken, FileWrapper, SecretContext, open_envelope, seal
from services._mesh.errors import Conflict, Denied, Unavailable
from services.broker.kms import FileKms
from services.broker.model import base_key
from services.broker.model.purposes import session_policy
from services.broker.model.replay import UsedGrants

READ = {"actions": ["ec2:DescribeVolumes"], "resources": ["*"]}
VOLUME = "arn:aws:ec2:us-east-1:111111111111:volume/vol-1"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[FileWrapper, FileKms]:
    return kms(tmp_path, "file:one")


def kms(folder: Path, kek_id: str) -> tuple[FileWrapper, FileKms]:
    key = X25519PrivateKey.generate()
    public, private = folder / f"{kek_id}.public", folder / f"{kek_id}.private"
    public.write_text(json.dumps({"kek_id": kek_id, "public_key": key.public_key().public_bytes_raw().hex()}))
    private.write_text(json.dumps({"kek_id": kek_id, "private_key": key.private_bytes_raw().hex()}))
    return FileWrapper(public), FileKms(private)


def context(**changes: object) -> SecretContext:
    given = {"organization_id": UUID(int=1), "credential_id": UUID(int=2), "purpose": "aws.base_key", **changes}
    return SecretContext(**given)  # type: ignore[arg-type]


def test_what_was_sealed_opens_in_its_own_context_only(keys: tuple[FileWrapper, FileKms]) -> None:
    wrapper, opener = keys
    envelope = seal(b"a secret", context(), wrapper)
    assert open_envelope(envelope, context(), opener) == b"a secret"
    assert b"a secret" not in envelope
    for other in (
        context(organization_id=UUID(int=9)),
        context(credential_id=UUID(int=9)),
        context(purpose="webhook.key"),
    ):
        with pytest.raises(EnvelopeBroken):
            open_envelope(envelope, other, opener)


def test_every_byte_is_covered(keys: tuple[FileWrapper, FileKms]) -> None:
    wrapper, opener = keys
    envelope = seal(b"x" * 40, context(), wrapper)
    for place in range(len(envelope)):
        changed = bytearray(envelope)
        changed[place] ^= 1
        with pytest.raises(EnvelopeBroken):
            open_envelope(bytes(changed), context(), opener)
    for length in (0, 1, 3, 20, len(envelope) - 1):
        with pytest.raises(EnvelopeBroken):
            open_envelope(envelope[:length], context(), opener)


def test_parts_of_two_envelopes_do_not_mix(keys: tuple[FileWrapper, FileKms]) -> None:
    wrapper, opener = keys
    one, two = (seal(text, context(), wrapper) for text in (b"one", b"two"))
    header = len(one) - len(b"one") - 16
    for mixed in (one[:header] + two[header:], two[:header] + one[header:]):
        with pytest.raises(EnvelopeBroken):
            open_envelope(mixed, context(), opener)


def test_nonces_and_key_material_are_never_used_twice(keys: tuple[FileWrapper, FileKms]) -> None:
    made = [seal(b"same", context(), keys[0]) for _ in range(200)]
    assert len({envelope[-20 - 12 : -20] for envelope in made}) == 200


def test_another_kek_or_none_opens_nothing(keys: tuple[FileWrapper, FileKms], tmp_path: Path) -> None:
    envelope = seal(b"x", context(), keys[0])
    with pytest.raises(EnvelopeBroken):
        open_envelope(envelope, context(), kms(tmp_path, "file:two")[1])
    with pytest.raises(Unavailable):
        open_envelope(envelope, context(), FileKms(tmp_path / "gone"))


def test_the_sealing_half_cannot_open(tmp_path: Path) -> None:
    """What the API process holds, used as an opener."""
    wrapper, _ = kms(tmp_path, "file:one")
    envelope = seal(b"x", context(), wrapper)
    with pytest.raises(Unavailable):
        open_envelope(envelope, context(), FileKms(tmp_path / "file:one.public"))


def test_a_base_key_shows_nothing_and_its_bytes_are_overwritten() -> None:
    content = {
        "access_key_id": "AKIA",
        "secret_access_key": "s3cret",
        "external_id": "e",
        "roles": {"1": {"scan": "arn"}},
    }
    plaintext = bytearray(json.dumps(content).encode())
    base = base_key.parse(plaintext)
    assert base.secret_access_key == "s3cret"
    assert "s3cret" not in repr(base)
    assert set(plaintext) == {0}
    with pytest.raises(Denied):
        base.role("1", "act")


def test_a_session_policy_holds_the_grants_statements_and_nothing_else() -> None:
    policy = json.loads(session_policy("act", [READ, {"actions": ["ec2:DeleteVolume"], "resources": [VOLUME]}]))
    assert [statement["Action"] for statement in policy["Statement"]] == [["ec2:DescribeVolumes"], ["ec2:DeleteVolume"]]
    assert policy["Statement"][1]["Resource"] == [VOLUME]


@pytest.mark.parametrize(
    ("purpose", "statements"),
    [
        ("scan", [{"actions": ["ec2:DeleteVolume"], "resources": [VOLUME]}]),
        ("act", [{"actions": ["iam:CreateUser"], "resources": ["*"]}]),
        ("act", [{"actions": ["ec2:DeleteVolume"], "resources": ["*"]}]),
        ("act", [{"actions": ["ec2:*"], "resources": [VOLUME]}]),
        ("act", []),
        ("act", [{"actions": [], "resources": [VOLUME]}]),
        ("root", [READ]),
        ("act", [{"actions": ["ec2:DeleteVolume"], "resources": [f"{VOLUME}{n}" for n in range(60)]}]),
    ],
)
def test_what_a_purpose_does_not_allow_is_refused(purpose: str, statements: list[dict[str, list[str]]]) -> None:
    with pytest.raises(Denied):
        session_policy(purpose, statements)


def test_a_grant_is_used_once_and_never_from_before_the_start() -> None:
    used, jti = UsedGrants(started_at=100.0), str(uuid4())
    used.use(jti, 101, 101.0)
    with pytest.raises(Denied):
        used.use(jti, 101, 102.0)
    for issued_at in (99, 100):
        with pytest.raises(Conflict):
            used.use(str(uuid4()), issued_at, 101.0)
