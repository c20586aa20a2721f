"""`--check` of every process: what a start would refuse is one line that names file, key, rule and way out.

The configurations are those of a local mesh. Nothing runs: a check reaches nobody.
"""

from __future__ import annotations

import asyncio
import importlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from recoup_local.ca import LocalCa, write_secret
from recoup_local.embedded.postgres import PostgresHandle
from recoup_local.installation import Installation, Surroundings
from recoup_local.layout import PROCESSES
from services._mesh import migrate
from services._mesh.clock import Clock
from services._mesh.config import ConfigError, load_settings
from services._mesh.rehearsal import rehearse
from services.audit.signer_memory import SignerMemory

# Any bytes will do as a password or as the secret of page tokens; the file KMS is the local profile's alone.
ANYTHING = ("password_file", "page_key", "kms.file")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    made = Installation(tmp_path_factory.mktemp("installation") / "state")
    nowhere = PostgresHandle(made.state, 5432, "postgres", "", "recoup", 0)
    nats, web = "tls://127.0.0.1:1", "http://127.0.0.1:1/"
    made.write_configs(Surroundings(nowhere, nats, web, web, web, "127.0.0.1:1"))
    return made


@pytest.fixture
def installation(whole: Installation) -> Iterator[Installation]:
    """One that a test may spoil: the folders of its processes are put back."""
    kept = whole.state / "kept"
    shutil.copytree(whole.state / "processes", kept)
    yield whole
    shutil.rmtree(whole.state / "processes")
    kept.rename(whole.state / "processes")


def parts(name: str) -> tuple[type[Any], Any]:
    """A process's settings class, and what puts it together."""
    (module,) = (spec.module for spec in PROCESSES if spec.name == name)
    found = importlib.import_module(module)
    if not hasattr(found, "compose"):
        found = importlib.import_module(f"{module}.__main__")
    return get_type_hints(found.compose)["settings"], found.compose


def check(installation: Installation, name: str) -> datetime:
    """When the process's certificate ends. Raises ConfigError."""
    settings, compose = parts(name)
    file = installation.config_file(name)
    return asyncio.run(rehearse(load_settings(settings, file), compose, file))


def files_of(settings: Any, *keys: str) -> Iterator[tuple[str, Path]]:
    """Every file that settings name, by its key."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            yield from files_of(value, *keys, each.name)
        elif isinstance(value, Path) and value.is_file():
            yield ".".join((*keys, each.name)), value


@pytest.mark.parametrize("name", [spec.name for spec in PROCESSES])
def test_each_file_of_a_good_configuration_is_looked_into(installation: Installation, name: str) -> None:
    """Beside a process that has the same address, and holds the same memory."""
    settings = load_settings(parts(name)[0], installation.config_file(name))
    held = SignerMemory.opened(settings.signer.state) if name == "audit-signer" else None
    with socket.create_server(("127.0.0.1", installation.ports[name])):
        assert check(installation, name) > datetime.now(UTC)
    if held is not None:
        held.close()
    for key, file in files_of(settings):
        if key.endswith(ANYTHING):
            continue
        content = file.read_bytes()
        file.write_bytes(b"nothing of use")
        with pytest.raises(ConfigError) as refused:
            check(installation, name)
        assert refused.value.key == key or key.startswith("tls.") or key == "signing.key", refused.value
        assert key != "signing.key" or refused.value.file == file
        assert refused.value.key != "(top)", refused.value
        file.write_bytes(content)


def _edit(name: str, old: str, new: str) -> Callable[[Installation], None]:
    def edit(installation: Installation) -> None:
        file = installation.config_file(name)
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))

    return edit


def _empty(installation: Installation) -> None:
    (installation.folder("pricing") / "api.password").write_text("")


def _section(name: str, section: str) -> Callable[[Installation], None]:
    """Without a section."""

    def edit(installation: Installation) -> None:
        file = installation.config_file(name)
        before, head, rest = file.read_text().partition(f"[{section}]\n")
        assert head
        following = rest.find("\n[")
        file.write_text(before + (rest[following + 1 :] if following >= 0 else ""))

    return edit


def _certificate(name: str = "pricing", ca: Callable[[Path], LocalCa] | None = None) -> Callable[[Installation], None]:
    """Another certificate for pricing, with its key."""

    def issue(installation: Installation) -> None:
        issuer = ca(installation.state) if ca else installation.ca
        issuer.issue(name, installation.folder("pricing"), dns=("pricing",))

    return issue


def _other(state: Path) -> LocalCa:
    return LocalCa(state / "other")


_PORT = ("[gateway]\n", '[gateway]\n"listen" = "127.0.0.1:70000"\n#')
_CALLERS = ("[peers]", '[callers.rpc]\n"recoup.pricing.v1.PricingService/Nothing" = ["gateway"]\n[peers]')
# What is wrong with a configuration -> the process, and the words of the one line about it.
WRONG: dict[str, tuple[str, Callable[[Installation], None], tuple[str, ...]]] = {
    "no peer": (
        "pricing",
        _edit("pricing", '"identity" = ', '"broker" = '),
        ("peers.identity: is missing. Say where",),
    ),
    "no peer of a route": ("gateway", _edit("gateway", '"scanner" = ', '"broker" = '), ("peers.scanner: is missing",)),
    "no database": ("audit-worker", _section("audit-worker", "database"), ("database: is missing. Say where it is",)),
    "no relay": ("scanner", _section("scanner", "database.relay"), ("database.relay: is missing. Name the login",)),
    "no dispatcher": ("identity", _section("identity", "database.dispatcher"), ("database.dispatcher: is missing",)),
    "no key": ("actions", _section("actions", "signing"), ("signing: is missing. Name the file",)),
    "no NATS": ("scanner-worker", _section("scanner-worker", "nats"), ("nats: is missing. Say where it is",)),
    "an empty secret": (
        "pricing",
        _empty,
        (
            "database.password_file: ",
            "api.password is empty. Put the secret there",
        ),
    ),
    "no such port": ("gateway", _edit("gateway", *_PORT), ("gateway.listen: there is no such port",)),
    "an RPC that there isn't": ("pricing", _edit("pricing", *_CALLERS), ("callers: ", "isn't an RPC of this process")),
    "another's certificate": (
        "pricing",
        _certificate(name="scanner"),
        ("tls.cert: is of scanner, and this is pricing",),
    ),
    "another CA's": ("pricing", _certificate(ca=_other), ("tls.cert: isn't issued by", "Have one issued for pricing")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_start_would_refuse_is_said_with_its_key_and_a_way_out(installation: Installation, wrong: str) -> None:
    name, spoil, words = WRONG[wrong]
    spoil(installation)
    with pytest.raises(ConfigError) as refused:
        check(installation, name)
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value)


def test_a_certificate_that_is_out_of_time_is_refused(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends_at = check(installation, "pricing")
    now = datetime.now(UTC)
    for at, words in ((ends_at + timedelta(minutes=1), "has expired"), (now - timedelta(days=2), "is good from")):
        monkeypatch.setattr(Clock, "wall_now", lambda _clock, at=at: at)
        monkeypatch.setattr(Clock, "wall_seconds", lambda _clock, at=at: at.timestamp())
        with pytest.raises(ConfigError, match=words):
            check(installation, "pricing")


def test_the_command_says_ok_or_the_line(installation: Installation) -> None:
    file = installation.config_file("pricing-worker")
    command = [sys.executable, "-m", "services.pricing.worker", "--config", str(file), "--check"]
    good = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith(f"{file}: ok (its certificate ends ")
    _section("pricing-worker", "nats")(installation)
    bad = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == f"configuration: {file}: nats: is missing. Say where it is, and as whom.\n"


def test_the_configuration_of_migrations_is_checked_too(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    file = installation.config_file("pricing")
    said = ["--config", str(file), "--check"]
    assert migrate.main([*said, "pricing"]) == 2  # A local mesh migrates by itself.
    assert f"{file}: database.migrate: is missing" in capsys.readouterr().err
    word = file.with_name("migrate.password")
    login = f'[database.migrate]\nuser = "pricing_migrate"\npassword_file = "{word.name}"\n'
    file.write_text(file.read_text() + login)
    assert migrate.main([*said, "pricing"]) == 2
    assert f"{file}: database.migrate.password_file" in capsys.readouterr().err
    write_secret(word, "anything")
    assert (migrate.main([*said, "pricing"]), capsys.readouterr().out) == (0, f"{file}: ok\n")
    assert migrate.main([*said, "prising"]) == 2
    assert f"{file}: SERVICE" in capsys.readouterr().err
