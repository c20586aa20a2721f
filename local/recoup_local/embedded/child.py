"""Starts children that end with us, however we end.

A child is started through a few lines of Python that ask the kernel for a signal at our death (PR_SET_PDEATHSIG) and
then become the program. Asking between fork and exec in our own process would be unsafe with threads. The kernel
sends the signal when the *thread* that forked ends, so children are started from threads that live as long as we do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# argv: signal number, our pid, program, its arguments. If we died before the request, the parent is another already.
_BECOME = (
    "import ctypes, os, sys; "
    "ctypes.CDLL(None).prctl(1, int(sys.argv[1])); "
    "os.getppid() == int(sys.argv[2]) or sys.exit(1); "
    "os.execvp(sys.argv[3], sys.argv[3:])"
)


def start(
    command: Sequence[str | Path],
    log: IO[bytes],
    *,
    death_signal: signal.Signals = signal.SIGTERM,
    environment: Mapping[str, str] | None = None,
    working_folder: Path | None = None,
    uid: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a process group of its own, its output in `log`. `uid` changes the user (as root only)."""
    if uid is None:
        become = [sys.executable, "-I", "-S", "-c", _BECOME, str(int(death_signal)), str(os.getpid())]
    else:  # util-linux's own tool: another user may not be able to reach our interpreter under a closed home.
        who = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
        become = ["setpriv", *who, f"--pdeathsig={death_signal.name.removeprefix('SIG')}", "--"]
    return subprocess.Popen(
        [*become, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(environment) if environment is not None else None,
        cwd=working_folder,
        process_group=0,
    )


def stop(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM, seconds: float = 10.0) -> None:
    """End a child: ask, wait, then kill. Does nothing for one that has ended."""
    if process.poll() is not None:
        return
    process.send_signal(how)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
