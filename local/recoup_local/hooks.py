"""What a process of the local profile imports from this wheel: the movable clock, the file KMS, what happens at
failpoints, and a PostgreSQL to throw away.

Production images don't have it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from recoup_local.cloud.simclock import SimClock
from recoup_local.embedded.postgres import EmbeddedPostgres
from recoup_local.kms import FileKms
from services._mesh.settings import DatabaseSettings
from services._mesh.threads import BoundedThreads


def open_clock(file: Path) -> Callable[[], datetime]:
    """The movable clock behind `file`, as a function that says what time it is."""
    return SimClock(file).now


def open_file_kms(file: Path, threads: BoundedThreads, deadline_seconds: float) -> FileKms:
    """The key service in `file`, or the half of it that the file has."""
    return FileKms(file, threads, deadline_seconds)


def start_scratch(folder: Path) -> tuple[DatabaseSettings, Callable[[], None]]:
    """A PostgreSQL that holds nothing, as its superuser, and what ends it; `folder` is for its log and password."""
    server = EmbeddedPostgres(folder, fsync=False)
    handle = server.start("postgres")
    password = folder / "scratch.password"
    password.touch(mode=0o600)
    password.write_text(handle.superuser_password)
    settings = DatabaseSettings(
        host=str(handle.socket_dir), port=handle.port, dbname="postgres", user=handle.superuser, password_file=password
    )
    return settings, server.stop


def open_failpoints(folder: Path, process: str) -> Callable[[str], None]:
    """What to do where a failpoint is reached: what the file `<process>.<name>` in `folder` says, once.

    "kill" ends the process at once, "hold" stops it until somebody lets it go on (SIGCONT).
    """

    def reached(name: str) -> None:
        armed = folder / f"{process}.{name}"
        try:
            how = _HOW[armed.read_text()]
            armed.rename(armed.with_name(f"{armed.name}.reached"))
        except FileNotFoundError:
            return
        os.kill(os.getpid(), how)

    return reached


_HOW = {"kill": signal.SIGKILL, "hold": signal.SIGSTOP}
