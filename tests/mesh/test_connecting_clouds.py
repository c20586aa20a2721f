"""Azure and Google Cloud through all processes: connected, probed, checked, rotated and removed by the command line.

The two clouds are thin fakes on loopback; what talks to them is the running broker and worker, by the official SDKs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from recoup_client import connections
from recoup_local.ca import write_secret
from services.scanner.cloud_checking import READS
from services.scanner.model.cloud import Provider
from tests.mesh.test_faults import rows
from tests.support import mesh as support
from tests.support.canary import Canary
from tests.support.clouds import (
    CLIENT,
    CLIENT_SECRET,
    EMAIL,
    ISSUER,
    POOL,
    PROD,
    TENANT,
    FakeAzure,
    FakeGoogle,
    certificate,
    certificate_pem,
    pem,
    private_key,
    service_account_key,
)
from tests.support.command import DONE, REFUSED, recoup
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("mesh")

CHANGED = ("broker", "scanner", "scanner-worker")


@dataclass
class Clouds:
    """The mesh, the two fakes that it is told of, and the command line."""

    made: TestMesh
    azure: FakeAzure
    google: FakeGoogle
    folder: Path

    def run(self, *arguments: str) -> Result:
        """A command of acme's FinOps."""
        return recoup(self.made, self.made.rest("acme", "FinOps").token, "--json", *arguments)

    def connection(self, done: Result) -> dict[str, Any]:
        """The connection that a command showed, which was refused where there is something wrong with it."""
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)["connection"]
        assert done.exit_code == (REFUSED if found["problem"] else DONE), done.stderr
        return found

    def file(self, name: str, content: str) -> str:
        """A file with a secret."""
        return str(write_secret(self.folder / name, content))

    def rotate(self, connection_id: str, *given: str) -> dict[str, Any]:
        """A rotation as far as the new secret is in use, or refused."""
        assert self.run("credential", "rotate", connection_id, *given).exit_code == DONE

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = json.loads(self.run("credential", "status", connection_id).stdout)["rotation"]
            return found if found["state"] in ("ROTATION_STATE_DRAINING", "ROTATION_STATE_FAILED") else None

        return support.until(ended)

    def remove(self, connection_id: str) -> None:
        """Remove a connection, for good."""
        assert self.run("connection", "remove", connection_id).exit_code == DONE
        assert self.sealed(connection_id) == 0

    def sealed(self, connection_id: str) -> int:
        """How many secrets of a connection are kept."""
        of = f"SELECT count(*) AS n FROM scanner.credentials WHERE connection_id = '{connection_id}'"
        return int(rows(self.made, of)[0]["n"])

    def told(self, connection_id: str) -> set[str]:
        """The events of a connection."""
        query = f"SELECT action FROM scanner.outbox WHERE convert_from(payload, 'UTF8') ~ '{connection_id}'"
        return {str(row["action"]) for row in rows(self.made, query)}


@pytest.fixture(scope="module")
def clouds(made: TestMesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    """What the broker and the scanner's worker are told of the clouds is changed, and they begin anew."""
    folder = tmp_path_factory.mktemp("clouds")
    azure = FakeAzure(folder)
    google = FakeGoogle(tls=azure.tls)
    installation = made.mesh.installation
    before = {name: installation.config_file(name).read_text() for name in CHANGED}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", azure.ca)  # Whom both SDKs believe; the two fakes have one CA.
        patch.setattr(connections, "_PAUSE_SECONDS", 0.1)
        _configure(made, azure, google)
        _begin_anew(made)
        yield Clouds(made, azure, google, folder)
    for name, text in before.items():  # For whoever is started next; no connection is left that asks the two fakes.
        write_secret(installation.config_file(name), text)
    azure.server.stop()
    google.server.stop()


def _configure(made: TestMesh, azure: FakeAzure, google: FakeGoogle) -> None:
    installation = made.mesh.installation
    places = {"azure": ("authority", "management"), "google": ("tokens", "sts", "iam_credentials", "resource_manager")}
    tables = "".join(
        "\n".join([f"[{name}]", *(f'{key} = "{server.url}"' for key in places[name]), ""])
        for name, server in (("azure", azure), ("google", google))
    )
    write_secret(installation.folder("broker") / "federation.pem", pem(private_key(9)))
    issuer = f'[federation]\nissuer = "{ISSUER}"\nkey = "federation.pem"\n'
    for name, more in (("broker", tables + issuer), ("scanner-worker", tables)):
        file = installation.config_file(name)
        write_secret(file, file.read_text() + more)
    file = installation.config_file("scanner")
    write_secret(file, file.read_text().replace("[scanner]\n", f'[scanner]\nfederation_issuer = "{ISSUER}"\n'))


def _begin_anew(made: TestMesh) -> None:
    for name in CHANGED:
        made.mesh.kill(name)

    async def restart() -> None:
        await asyncio.gather(*(made.mesh.restart(name) for name in CHANGED))

    asyncio.run(restart())
    finops = made.rest("acme", "FinOps")
    support.until(lambda: True if finops.call("GET", "/connections").status_code == 200 else None)


def test_azure_is_connected_checked_rotated_and_removed(clouds: Clouds) -> None:
    azure, lacking = clouds.azure, "Microsoft.Compute/snapshots/read"
    everything = [{"actions": ["*/read"], "notActions": []}]
    azure.roles = {PROD: everything}
    named = ("--name", "azure", "--tenant", TENANT, "--client", CLIENT, "--subscription", PROD)
    refused = clouds.run("connect", "azure", *named, "--secret-file", clouds.file("wrong", "x" * 40))
    wrong = clouds.connection(refused)
    assert "(AADSTS7000215): azure_client_secret" in wrong["problem"]
    assert "it was removed with its credential" in refused.stderr
    assert clouds.sealed(wrong["connectionId"]) == 0
    found = clouds.connection(clouds.run("connect", "azure", *named, "--secret-file", clouds.file("s", CLIENT_SECRET)))
    connection_id = found["connectionId"]
    assert [(c["permission"], c["outcome"]) for c in found["permissionChecks"]] == [
        (each, "ALLOWED") for each in READS[Provider.AZURE]
    ]
    assert [each["scopeId"] for each in found["discovered"]] == [PROD]
    assert connection_id in {reason for _, reason in azure.asked}
    assert "CLOUD_NOT_SCANNED" in clouds.run("scan", "start", connection_id).stderr
    # A permission that is lost, and is back.
    azure.roles = {PROD: [{"actions": ["*/read"], "notActions": [lacking]}]}
    assert (
        f"lacks {lacking}. Add {lacking} to"
        in clouds.connection(clouds.run("connection", "check", connection_id))["problem"]
    )
    azure.roles = {PROD: everything}
    assert not clouds.connection(clouds.run("connection", "check", connection_id))["problem"]
    # A certificate that the application doesn't know stays out; one that it knows takes the secret's place.
    both = clouds.file("both", certificate_pem(mine := certificate(private_key(1))) + pem(private_key(1)))
    failed = clouds.rotate(connection_id, "--certificate-file", both)
    assert "AADSTS700027" in failed["problem"]
    azure.registered.append(mine)
    assert clouds.rotate(connection_id, "--certificate-file", both)["state"] == "ROTATION_STATE_DRAINING"
    azure.signed_in.clear()
    assert not clouds.connection(clouds.run("connection", "check", connection_id))["problem"]
    assert set(azure.signed_in) == {"assertion"}
    events = {f"scanner.{each}" for each in ("connection.activate", "connection.drift", "credential.promote")}
    assert events <= clouds.told(connection_id)
    clouds.remove(connection_id)
    state = clouds.made.mesh.state
    assert Canary(CLIENT_SECRET).found_below(state, except_in=frozenset({state / "cloud"})) == {}


def test_google_cloud_is_connected_checked_rotated_and_removed(clouds: Clouds) -> None:
    google, permissions = clouds.google, READS[Provider.GCP]
    google.held = {"acme-prod": list(permissions)}
    file = clouds.file("key.json", json.dumps(service_account_key()))
    other = clouds.run("connect", "gcp", "--name", "gcp", "--key-file", file, "--project", "acme-dev")
    assert other.exit_code == REFUSED
    assert "acme-prod" in other.stderr  # The key's own project, before anything is kept.
    found = clouds.connection(
        clouds.run("connect", "gcp", "--name", "gcp", "--key-file", file, "--project", "acme-prod")
    )
    connection_id = found["connectionId"]
    assert [(c["permission"], c["outcome"]) for c in found["permissionChecks"]] == [
        (each, "ALLOWED") for each in permissions
    ]
    assert {reason for _, reason in google.asked} == {f"gcp.check-{connection_id}"}
    google.held = {"acme-prod": list(permissions[1:])}
    checked = clouds.connection(clouds.run("connection", "check", connection_id))
    assert f"projects/acme-prod lacks {permissions[0]}" in checked["problem"]
    google.held = {"acme-prod": list(permissions)}
    new = {"private_key_id": "f" * 40, "private_key": pem(private_key(2))}
    newer = clouds.file("newer.json", json.dumps(service_account_key(**new)))
    assert "gcp_service_account_key" in clouds.rotate(connection_id, "--key-file", newer)["problem"]
    google.accepts = private_key(2).public_key()
    assert clouds.rotate(connection_id, "--key-file", newer)["state"] == "ROTATION_STATE_DRAINING"
    assert not clouds.connection(clouds.run("connection", "check", connection_id))["problem"]
    clouds.remove(connection_id)
    line = service_account_key()["private_key"].splitlines()[5]
    state = clouds.made.mesh.state
    assert Canary(line).found_below(state, except_in=frozenset({state / "cloud"})) == {}


def test_without_a_secret_each_cloud_trusts_the_broker_for_one_connection(clouds: Clouds) -> None:
    clouds.azure.roles = {PROD: [{"actions": ["*/read"], "notActions": []}]}
    clouds.google.held = {"acme-prod": list(READS[Provider.GCP])}
    pool = ("--service-account", EMAIL, "--workload-identity-provider", POOL, "--project", "acme-prod")
    for cloud, server, refusal, given in (
        (
            "azure",
            clouds.azure,
            "AADSTS70021",
            ("--tenant", TENANT, "--client", CLIENT, "--subscription", PROD, "--federated"),
        ),
        ("gcp", clouds.google, "sts_invalid_grant", pool),
    ):
        made = json.loads(clouds.run("connect", cloud, "--name", "trust", *given).stdout)["connection"]
        connection_id = made["connectionId"]
        assert made["federation"]["issuer"] == ISSUER
        server.trusts = "somebody else"
        assert refusal in clouds.connection(clouds.run("connection", "check", connection_id))["problem"]
        server.trusts = made["federation"]["subject"]
        assert not clouds.connection(clouds.run("connection", "check", connection_id))["problem"]
        server.trusts = ""
        clouds.remove(connection_id)
