"""A process loads the drivers of what it may reach and no others: who breaks in finds nothing else to use."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("module", ["services.gateway.__main__", "services.identity.__main__", "services.audit.signer"])
def test_the_event_loop_of_grpc_is_chosen_before_it_is_loaded(module: str) -> None:
    # Of a choice that a later grpcio doesn't have any more, it says so.
    script = f"""
import sys
chosen = []
class Finder:
    def find_spec(self, name, *_):
        if name == "grpc":
            import os
            chosen.append(os.environ.get("GRPC_EXPERIMENTS", ""))
sys.meta_path.insert(0, Finder())
import {module}
import grpc
grpc.insecure_channel("127.0.0.1:1").close()
print(*chosen)
"""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert found.stdout.strip() == "-event_engine_client,-event_engine_listener"
    assert "experiment" not in found.stderr.lower()
