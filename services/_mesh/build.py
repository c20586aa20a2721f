"""Which build runs: the version of the package, and the revision of the repository that it was made from."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE = "recoup-services"
# Set where an image is made; a checkout knows by itself.
REVISION = "RECOUP_REVISION"
UNKNOWN = "unknown"
_CHECKOUT = Path(__file__).resolve().parents[2] / ".git"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Build:
    """What is told of a build. Where something isn't known, it says so: nothing depends on it."""

    version: str
    revision: str
    python: str

    def __str__(self) -> str:
        return f"{_PACKAGE} {self.version} (revision {self.revision}, Python {self.python})"


def this_build(git: Path = _CHECKOUT) -> Build:
    """The build of this process. `git` is the checkout's own folder, or the file that a worktree has instead."""
    try:
        found = version(_PACKAGE)
    except PackageNotFoundError:
        found = UNKNOWN
    return Build(found, os.environ.get(REVISION) or _checked_out(git) or UNKNOWN, platform.python_version())


def _checked_out(git: Path) -> str:
    """The commit that a checkout stands at; empty where this isn't one, or none that can be read."""
    try:
        if git.is_file():
            git = git.parent / git.read_text("utf-8").removeprefix("gitdir:").strip()
        shared = git / "commondir"
        common = git / shared.read_text("utf-8").strip() if shared.exists() else git
        head = (git / "HEAD").read_text("utf-8").strip()
        if head.startswith("ref: "):
            head = _branch(git, common, head.removeprefix("ref: "))
    except (OSError, UnicodeDecodeError):
        return ""
    return head if _COMMIT.fullmatch(head) else ""


def _branch(git: Path, common: Path, name: str) -> str:
    for folder in (git, common):
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8").strip()
    lines = (common / "packed-refs").read_text("utf-8").splitlines()
    return next((line.partition(" ")[0] for line in lines if line.endswith(f" {name}")), "")
