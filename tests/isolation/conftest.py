"""The isolation suite runs where the story was told: there is something of every kind to keep apart."""

from __future__ import annotations

import pytest

from tests.support.mesh import TestMesh
from tests.support.story import Told


@pytest.fixture(scope="session")
def made(told: Told) -> TestMesh:
    return told.made
