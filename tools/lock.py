"""Locks the requirements files: names, versions, hashes, and a digest of the input, but no address.

What is locked already stays as it is while it fits, so that a new package changes nothing else; `--upgrade` takes the
newest of everything. `--check` compares digests only, so that it needs no network.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {
    "requirements.txt": ("requirements.in",),
    "requirements-dev.txt": ("requirements-dev.in", "requirements.in"),
    "requirements-protos.txt": ("requirements-protos.in",),
}


def digest(inputs: tuple[str, ...]) -> str:
    """SHA-256 over the input files, so that a lock names what it was made from."""
    return hashlib.sha256(b"\0".join((ROOT / name).read_bytes() for name in inputs)).hexdigest()


def lock(output: str, inputs: tuple[str, ...], *, upgrade: bool = False) -> None:
    """Resolve `inputs` and write `output`."""
    subprocess.run(
        [
            str(Path(sys.executable).with_name("uv")),
            "pip",
            "compile",
            "--quiet",
            "--generate-hashes",
            "--no-emit-index-url",
            "--no-emit-find-links",
            "--no-annotate",
            "--no-header",
            "--python-version=3.11",
            inputs[0],
            *(["--no-deps", "--no-binary=protovalidate"] if output == "requirements-protos.txt" else []),
            *(["--no-strip-extras", "--constraint=requirements.txt"] if output == "requirements-dev.txt" else []),
            *(["--upgrade"] if upgrade else []),
            f"--output-file={output}",  # uv reads from it which versions to keep.
        ],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    locked = _with_and_without_extras((ROOT / output).read_text())
    (ROOT / output).write_text(f"# Locked from {' and '.join(inputs)}, sha256 {digest(inputs)}\n{locked}")


def _with_and_without_extras(locked: str) -> str:
    """Each package that is locked with an extra, without it too: pip takes them for two, and wants both hashed."""
    return re.sub(r"^([\w.-]+)\[[^\]]+\](==[^\n]*(?:\n    [^\n]*)*)", r"\1\2\n\g<0>", locked, flags=re.MULTILINE)


def stale() -> list[str]:
    """The locks that weren't made from today's inputs, or that name an address."""
    found = []
    for output, inputs in LOCKS.items():
        text = (ROOT / output).read_text() if (ROOT / output).exists() else ""
        if digest(inputs) not in text.split("\n", 1)[0] or "://" in text:
            found.append(output)
    return found


def main() -> int:
    """Lock everything, or check with --check."""
    if "--check" in sys.argv[1:]:
        for name in stale():
            print(f"{name} is stale: run `make lock` and commit it", file=sys.stderr)
        return 1 if stale() else 0
    for output, inputs in LOCKS.items():
        lock(output, inputs, upgrade="--upgrade" in sys.argv[1:])
        print(f"locked {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
