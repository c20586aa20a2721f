"""The key of the passports is rotated: both verify during the overlap, the old one is refused after it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from uuid import UUID

import pytest

from recoup_local.keys import signing_key
from services._mesh import tokens, trust
from services._mesh.clock import Clock
from services._mesh.errors import Unauthenticated
from services._mesh.passport_verifier import PassportVerifier
from services._mesh.passports import Passport, sign_passport
from services._mesh.revocations import Revocations
from services._mesh.tokens import SigningKey
from services._mesh.trust import TrustStore
from services.identity import rotate


class Place:
    """A key, a trust folder, and a service that checks passports by it; a second is over whenever a test says so."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.now = folder, 1000.0
        self.key, self.new, self.trust = folder / "signing.key", folder / "new.key", folder / "identity.jwks.json"
        for module in (tokens, trust):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)
        signing_key(folder, "identity", folder)
        self.signing = SigningKey.load(self.key, "local")
        clock = Clock()
        self.verifier = PassportVerifier(
            TrustStore(folder), Revocations(clock), clock, audience="actions", profile="local"
        )

    def passport(self) -> str:
        now = int(time.time())
        return sign_passport(
            self.signing,
            Passport(
                audience="actions",
                actor="user:1",
                responsible_person=UUID(int=1),
                organization_id=UUID(int=2),
                role="ADMIN",
                permissions=frozenset(),
                permissions_version=1,
                session_id="s",
                aal=2,
                auth_time=now,
                act=(),
                presenter="x5t",
                jti="j",
                issued_at=now,
                expires_at=now + 300,
            ),
        )

    def step(self, name: str, *files: str) -> int:
        arguments = [argument for file in files for argument in (f"--{file}", str(getattr(self, file)))]
        code = rotate.main([name, *arguments])
        self.now += 2
        return code

    def age(self, file: Path, seconds: float) -> None:
        os.utime(file, (time.time() - seconds,) * 2)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_both_keys_verify_during_the_overlap_and_the_old_one_is_refused_after_it(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    old, before = place.passport(), place.signing.kid
    assert place.step("stage", "new", "trust") == 0
    assert place.new.stat().st_mode & 0o777 == 0o600
    assert place.signing.kid == before
    assert place.step("switch", "key", "new", "trust") == 1  # Nobody may have read the trust folder yet.
    place.age(place.trust, 10)
    assert place.step("switch", "key", "new", "trust") == 0
    new = place.passport()
    assert place.signing.kid != before
    assert not place.new.exists()
    for token in (old, new):
        assert place.verifier.verify(token, "x5t").actor == "user:1"
    assert place.step("retire", "key", "trust") == 1
    assert "live on for" in capsys.readouterr().err
    place.age(place.key, rotate.OVERLAP_SECONDS + 1)
    assert place.step("retire", "key", "trust") == 0
    assert place.verifier.verify(new, "x5t").actor == "user:1"
    with pytest.raises(Unauthenticated):
        place.verifier.verify(old, "x5t")
    assert place.step("retire", "key", "trust") == 1


def test_a_step_out_of_turn_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.step("retire", "key", "trust") == 1
    assert place.step("switch", "key", "new", "trust") == 1
    assert place.step("stage", "new", "trust") == 0
    assert place.step("stage", "new", "trust") == 1
    assert "end the rotation under way first" in capsys.readouterr().err
    trusted = place.trust.read_text()
    place.trust.write_text(json.dumps(place.signing.public_jwks()))
    place.age(place.trust, 10)
    assert place.step("switch", "key", "new", "trust") == 1
    assert "nobody would believe it" in capsys.readouterr().err
    assert place.step("stage", "new", "trust") == 1
    assert "never written over" in capsys.readouterr().err
    place.trust.write_text(trusted)
    place.trust.write_text("not json")
    assert place.step("stage", "new", "trust") == 1


def test_a_file_that_holds_no_key_any_more_leaves_the_last_one(place: Place) -> None:
    place.key.write_text("nothing")
    place.now += 2
    assert place.verifier.verify(place.passport(), "x5t").actor == "user:1"
    place.key.unlink()
    place.now += 2
    assert place.verifier.verify(place.passport(), "x5t").actor == "user:1"
