"""Nobody of the same user looks into the running broker, and it leaves no core dump. Into a bare process they do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from recoup_local.installation import Installation, Surroundings

_PR_CAPBSET_DROP, _CAP_SYS_PTRACE = 24, 19
_PATIENCE_SECONDS = 60
# PR_SET_PTRACER, anybody: where the kernel restricts looking to a process's ancestors (Yama), siblings may too.
BARE = """
import ctypes, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
print("here", file=sys.stderr, flush=True)
sys.stdin.read()
"""
# Its own memory, by its own word on where that is.
LOOKER = """
import sys
pid = sys.argv[1]
try:
    begins = int(open(f"/proc/{pid}/maps").read().split("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(begins)
        print(len(memory.read(16)))
except PermissionError:
    print("refused")
"""


# What every process but root's has: no right to look into others'. Core dumps are as large as they may be. Then it is
# the command itself: in a fork of a process with gRPC threads, gRPC's own words may come first.
BOUND = f"""
import ctypes, os, resource, sys
ctypes.CDLL(None).prctl({_PR_CAPBSET_DROP}, {_CAP_SYS_PTRACE}, 0, 0, 0)
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said its first word."""
    process = subprocess.Popen(
        [sys.executable, "-c", BOUND, *command],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=_PATIENCE_SECONDS)


def look_into(pid: int) -> str:
    """What somebody of the same user finds."""
    done = subprocess.run(
        [sys.executable, "-c", BOUND, "-c", LOOKER, str(pid)],
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
    )
    return done.stdout.strip()


def core_limit(pid: int) -> str:
    found = re.search(r"Max core file size +(\S+ +\S+)", Path(f"/proc/{pid}/limits").read_text())
    assert found
    return " ".join(found[1].split())


def test_the_running_broker_is_not_looked_into_and_dumps_nothing(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    nowhere: Any = SimpleNamespace(socket_dir="", port=1, dbname="")  # The broker has no database.
    installation.write_configs(Surroundings(nowhere, "", "", "http://127.0.0.1:1", "", ""))
    config = installation.config_file("broker")
    with running("-m", "services.broker", "--config", str(config)) as broker, running("-c", BARE) as bare:
        assert look_into(bare.pid) == "16"
        assert look_into(broker.pid) == "refused"
        assert core_limit(broker.pid) == "0 0"
        broker.send_signal(signal.SIGABRT)
        status = os.waitid(os.P_PID, broker.pid, os.WEXITED | os.WNOWAIT)
        assert status is not None
        assert status.si_code != os.CLD_DUMPED
