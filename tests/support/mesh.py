"""The whole mesh for tests: one for each test process, brought up on first use, with its emulated cloud seeded."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import httpx

from recoup_local.cloud import ACCOUNTS, DENIED_REGION, REGIONS
from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.estate.plan import build_plan
from recoup_local.cloud.estate.roles import BaseUser, create_base_user, install_roles
from recoup_local.cloud.estate.seeder import Estate
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh

T = TypeVar("T")
PATIENCE_SECONDS = 60.0
# Well below what RPCs that need recent authentication ask for.
RECENT_SECONDS = 300.0
_people: list[Person] = []


@dataclass
class TestMesh:
    """A running mesh, with a seeded estate and a connection of acme's that is ready to scan."""

    __test__ = False

    mesh: LocalMesh
    clients: AwsClients
    estate: Estate
    base_user: BaseUser
    day0: datetime
    connection_id: str = ""
    _people: dict[Any, Person] = field(default_factory=dict)

    def go_to(self, day: int, minutes: int = 0) -> None:
        """Move the clock to a day of the story, so many minutes after nine."""
        self.mesh.clock.set_now(self.day0 + timedelta(days=day, minutes=minutes))

    def rest(self, organization: str, role: str, **session: Any) -> Person:
        """Somebody who talks REST; the same session each time for the same somebody, until it is no longer recent."""
        key = (organization, role, tuple(sorted(session.items())))
        known = self._people.get(key)
        if known is None or time.monotonic() - known.signed_in_at > RECENT_SECONDS:
            self._people[key] = Person(self.mesh, organization, self.mesh.token(organization, role, **session))
        return self._people[key]

    def signed_in_anew(self, organization: str, role: str) -> Person:
        """The same person in a new session, for whoever comes later too: after their sessions were ended."""
        for key in [each for each in self._people if each[:2] == (organization, role)]:
            del self._people[key]
        return self.rest(organization, role)

    def channel(self, peer: str, process: str) -> grpc.aio.Channel:
        """A channel to `peer` under the certificate of `process` ("client/tests" is a typed client)."""
        return channel_of(self.mesh, peer, process)


def channel_of(mesh: LocalMesh, peer: str, process: str, port: int = 0) -> grpc.aio.Channel:
    """A channel to `peer` under the certificate of `process`; to another port than the peer's own, where one is given.

    It tries again soon: in tests, peers come back soon.
    """
    return grpc.aio.secure_channel(*_connection(mesh, peer, process, port))


def blocking_channel_of(mesh: LocalMesh, peer: str, process: str) -> grpc.Channel:
    """The same, of no event loop: it can be kept from one test to the next."""
    return grpc.secure_channel(*_connection(mesh, peer, process))


def _connection(
    mesh: LocalMesh, peer: str, process: str, port: int = 0
) -> tuple[str, grpc.ChannelCredentials, list[tuple[str, Any]]]:
    folder = mesh.installation.folder(process)
    if process.startswith("client/"):
        folder = mesh.state / "clients" / process.removeprefix("client/")
    credentials = grpc.ssl_channel_credentials(
        mesh.installation.ca.cert_file.read_bytes(),
        (folder / "tls.key").read_bytes(),
        (folder / "tls.pem").read_bytes(),
    )
    backoff = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 500)]
    options = [("grpc.ssl_target_name_override", peer), *backoff]
    return f"127.0.0.1:{port or mesh.installation.ports[peer]}", credentials, options


class Person:
    """A client of the gateway with one session."""

    def __init__(self, mesh: LocalMesh, organization: str, token: str) -> None:
        self.mesh, self.organization_id = mesh, str(organization_id(organization))
        self.token, self.signed_in_at = token, time.monotonic()
        self.client = httpx.Client(
            base_url=mesh.gateway_url,
            verify=ssl.create_default_context(cafile=str(mesh.installation.ca.cert_file)),
            headers={"authorization": f"Bearer {token}"} if token else {},
            timeout=30.0,
        )
        _people.append(self)

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request below the person's organization."""
        return self.client.request(method, f"/v1/organizations/{self.organization_id}{path}", **arguments)

    def get(self, path: str, **parameters: Any) -> dict[str, Any]:
        """The document of a successful read."""
        answer = self.call("GET", path, params=parameters)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The document of a successful change."""
        answer = self.call("POST", path, json=body or {})
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document


@contextmanager
def running_mesh(*, fsync: bool = False, trace_ratio: float = 1.0) -> Iterator[TestMesh]:
    """A mesh with a seeded estate, connected and ready to scan; taken down at the end."""
    with _started(fsync=fsync, trace_ratio=trace_ratio) as mesh:
        yield _seeded(mesh)


@contextmanager
def small_mesh(*processes: str, fsync: bool = False, failpoints: bool = False) -> Iterator[LocalMesh]:
    """A mesh of these processes alone, without a cloud; taken down at the end."""
    with _started(cloud=False, only=processes, fsync=fsync, failpoints=failpoints) as mesh:
        yield mesh


@contextmanager
def _started(**settings: Any) -> Iterator[LocalMesh]:
    state = Path(tempfile.mkdtemp(prefix="recoup-mesh-"))
    mesh = LocalMesh(state, **settings)
    try:
        asyncio.run(mesh.start())
        yield mesh
    finally:
        close_people(mesh)
        mesh.stop()
        shutil.rmtree(state, ignore_errors=True)


def close_people(mesh: LocalMesh) -> None:
    """Close the connections of everybody who talks to this mesh."""
    for person in _people:
        if person.mesh is mesh:
            person.client.close()


def _seeded(mesh: LocalMesh) -> TestMesh:
    clients = AwsClients.of(mesh.cloud)
    estate = Estate(clients, build_plan())
    estate.create_bill_bucket()
    day0 = datetime.now(UTC).replace(hour=9, minute=0, second=0, microsecond=0)
    made = TestMesh(mesh, clients, estate, create_base_user(clients), day0)
    for day in [day for day in estate.plan.days() if day <= -35]:
        made.go_to(day)
        estate.seed_day(day)
    made.go_to(-35)
    made.connection_id = connect(made)
    return made


def new_connection(made: TestMesh) -> dict[str, Any]:
    """The body that connects the estate."""
    return {
        "displayName": "acme production",
        "awsAccessKeyId": made.base_user.access_key_id,
        "awsSecretAccessKey": made.base_user.secret_access_key,
        "awsAccounts": [
            {
                "accountId": account,
                "scanRoleArn": f"arn:aws:iam::{account}:role/RecoupScan",
                "actRoleArn": f"arn:aws:iam::{account}:role/RecoupAct",
            }
            for account in ACCOUNTS
        ],
        "regions": [*REGIONS, DENIED_REGION],
    }


def connect(made: TestMesh) -> str:
    """Connect acme's estate and see it verified; returns the connection's id."""
    finops = made.rest("acme", "FinOps")
    connection = finops.post("/connections", new_connection(made))["connection"]
    install_roles(made.clients, made.base_user.arn, connection["externalId"])
    found = verify(finops, connection["connectionId"])
    assert found["state"] == "CONNECTION_STATE_ACTIVE", found["problem"]
    return str(connection["connectionId"])


def verify(person: Person, connection_id: str) -> dict[str, Any]:
    """Verify a connection, and wait for what comes of it."""
    person.post(f"/connections/{connection_id}:verify")

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = person.get(f"/connections/{connection_id}")["connection"]
        return found if found["state"] != "CONNECTION_STATE_VERIFYING" else None

    return until(ended)


def scan(made: TestMesh, person: Person) -> dict[str, Any]:
    """Scan acme's estate, and wait for the end."""
    started = person.post("/scans", {"connectionId": made.connection_id})["scan"]
    return scan_ended(person, started["scanId"])


def scan_ended(person: Person, scan_id: str) -> dict[str, Any]:
    """Wait until a scan is over."""

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = person.get(f"/scans/{scan_id}")["scan"]
        return found if found["state"] not in ("SCAN_STATE_QUEUED", "SCAN_STATE_RUNNING") else None

    return until(ended, 120.0)


def until(look: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
    """Look until there is something; fails the test when nothing comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing came within {seconds:.0f} s")


async def soon(look: Callable[[], Awaitable[T | None]], seconds: float = PATIENCE_SECONDS) -> T:
    """The same for something that is awaited."""
    async with asyncio.timeout(seconds):
        while True:
            found = await look()
            if found is not None:
                return found
            await asyncio.sleep(0.05)
