"""The TypeScript client in tests: Node from its locked package, the client compiled as it would be handed out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tools.typescript import CLIENT, NODE


def node(*arguments: str | Path, env: Mapping[str, str] | None = None, seconds: float = 60) -> str:
    """What a program said. Fails the test with all of it where it didn't end well."""
    done = run(*arguments, env=env, seconds=seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(
    *arguments: str | Path, env: Mapping[str, str] | None = None, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """A program of Node's in the client's folder, run to its end."""
    return subprocess.run(
        [NODE, *arguments],
        cwd=CLIENT,
        env={**os.environ, "NO_COLOR": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def tsc(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The compiler."""
    return run(CLIENT / "node_modules" / "typescript" / "bin" / "tsc", *arguments)


def npm(*arguments: str | Path, folder: Path) -> None:
    """npm in a folder, without a network."""
    program = Path(NODE).parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    done = subprocess.run(
        [NODE, program, *arguments, "--offline", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def compile_client(folder: Path = CLIENT) -> None:
    """Into the folder of the package, or another one. Its own types are checked by `make lint`, and not here again."""
    done = tsc("--project", "tsconfig.build.json", "--noCheck", "--outDir", folder / "dist")
    assert done.returncode == 0, done.stdout
