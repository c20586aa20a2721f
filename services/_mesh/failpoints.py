"""Named places where a test may have this process killed or held. Outside of the local profile they do nothing at all.

What happens at one is decided in `recoup_local`, which production images don't contain.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path


def _nothing(_name: str) -> None:
    pass


_reached: Callable[[str], None] = _nothing


def reach(name: str) -> None:
    """Say that the process has come to the place `name`."""
    _reached(name)


def open_failpoints(profile: str, folder: Path | None, process: str) -> None:
    """Let the files in `folder` say what happens at the places of this process. Raises RuntimeError in production."""
    global _reached
    if folder is None:
        return
    if profile != "local":  # The settings refuse it, too.
        raise RuntimeError("failpoints are for the local profile only")
    _reached = importlib.import_module("recoup_local.hooks").open_failpoints(folder, process)
