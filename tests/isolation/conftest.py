"""The isolation suite runs where the story was told: there is something of every kind to keep apart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.isolation.rpcs import TENANT, WHOLE
from tests.isolation.straight import Straight
from tests.isolation.valid_requests import FACTORIES, Case
from tests.support.mesh import TestMesh
from tests.support.story import Told


@pytest.fixture(scope="session")
def made(told: Told) -> TestMesh:
    return told.made


@pytest.fixture(scope="session")
def cases(made: TestMesh) -> dict[str, Case]:
    return {name: FACTORIES[name](made) for name in TENANT + WHOLE}


@pytest.fixture(scope="session")
def straight(made: TestMesh) -> Iterator[Straight]:
    straight = Straight(made)
    yield straight
    straight.close()
