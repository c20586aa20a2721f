"""A process loads the drivers of what it may reach and no others: who breaks in finds nothing else to use."""

from __future__ import annotations

import subprocess
import sys

import pytest

DATABASE = {"sqlalchemy", "asyncpg"}
CLOUDS = {"boto3", "botocore", "azure"}
# Of planes that reach none of these.
NEVER = {
    "services.gateway.__main__": DATABASE | CLOUDS,
    "services.broker.__main__": DATABASE,
    "services.audit.signer": DATABASE | CLOUDS | {"nats", "httpx"},
    "services.audit.witness": DATABASE | CLOUDS | {"nats", "httpx"},
    "services.actions.__main__": CLOUDS,
}


@pytest.mark.parametrize("module", NEVER)
def test_what_a_process_never_reaches_is_not_loaded(module: str) -> None:
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "grpc" in loaded.stdout.split()
    assert not NEVER[module] & set(loaded.stdout.split())
