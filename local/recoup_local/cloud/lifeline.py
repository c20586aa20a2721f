"""Ends a child process when its parent has died, however the parent died.

The parent keeps the write end of the child's stdin and never writes; the kernel closes it on any death.
(PR_SET_PDEATHSIG fires when the *thread* that forked ends, so a supervisor with threads can't rely on it.)
"""

from __future__ import annotations

import os
import sys
import threading


def exit_with_parent() -> None:
    """Starts a daemon thread that ends this process, status 0, once stdin reaches end of file."""
    threading.Thread(target=_wait_for_end, name="lifeline", daemon=True).start()


def _wait_for_end() -> None:
    descriptor = sys.stdin.fileno()
    while os.read(descriptor, 4096):
        pass
    os._exit(0)
