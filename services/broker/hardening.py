"""Keeps the broker's memory to itself: no core dump, and no other process of the same user that reads it.

Owns what the operating system is asked for at the start. It can't help against root, nor against swap.
"""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def harden() -> None:
    """Say it before the first secret is in memory. Raises OSError where the system refuses.

    The limit alone isn't enough: Linux ignores it where core dumps go to a program (core(5)). What isn't dumpable is
    dumped nowhere, and needs CAP_SYS_PTRACE to be looked into (prctl(2), ptrace(2)). Elsewhere, only the limit.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):
        return
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 or prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the process can't be made undumpable")
