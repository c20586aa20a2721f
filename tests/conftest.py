"""Fixtures for all tests: real databases and a real NATS, made when first asked for and gone when the run ends.

PostgreSQL is one cluster for each test process (see support/postgres.py); a database is a test's own, copied from a
template. `services` chooses whose migrations it has: `@pytest.mark.services("identity", "audit")`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.mesh import TestMesh, running_mesh
from tests.support.nats import TestNats
from tests.support.postgres import TestDatabase, drop, new_database
from tests.support.story import Told, told_story

ROOT = Path(__file__).resolve().parents[1]
# What is taken down when its xdist group is done with it: an idle mesh takes a good part of a core from other tests.
_group = ExitStack()


def services_with_migrations() -> list[str]:
    """The services that have any migration."""
    return sorted(path.parts[-4] for path in (ROOT / "services").glob("*/migrations/versions/0001_*.py"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run where pytest-xdist can't keep its groups together: each worker would set up everything."""
    if config.getoption("loadgroup", False):  # Set in workers only.
        for item in items:
            if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
                raise pytest.UsageError("this pytest-xdist doesn't group tests under this pytest")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Take down what an xdist group stood on after its last test; where groups aren't kept together, it stays."""
    if item.config.getoption("loadgroup", False):  # Set in workers only.
        mine, following = (each and each.get_closest_marker("xdist_group") for each in (item, nextitem))
        if mine and mine != following:
            _group.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the nemesis lasts, and which one it is (tests/mesh/test_nemesis.py)."""
    parser.addoption("--nemesis-seconds", type=float, default=0.0, help="how long faults go on, after each once")
    parser.addoption("--nemesis-seed", type=int, default=0, help="repeat the faults of this seed")


@pytest.fixture
async def database(request: pytest.FixtureRequest) -> AsyncIterator[TestDatabase]:
    """A database of the test's own, with the migrations of the services that its mark names."""
    mark = request.node.get_closest_marker("services")
    made = await new_database(mark.args if mark else ())
    yield made
    await drop(made)


@pytest.fixture
async def nats_server() -> AsyncIterator[TestNats]:
    """A NATS server of the test's own, with the users of the service "pricing"."""
    server = TestNats("pricing")
    yield server
    await server.close()


@pytest.fixture(scope="session")
def told() -> Iterator[Told]:
    """The story, told once for each test process; tests that use it stand in the xdist group "story"."""
    yield _group.enter_context(told_story())
    _group.close()


@pytest.fixture(scope="session")
def made() -> Iterator[TestMesh]:
    """The whole mesh, once for each test process; tests that use it stand in one xdist group."""
    yield _group.enter_context(running_mesh())
    _group.close()
