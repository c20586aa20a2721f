"""Rotates the key that passports are signed with: `python -m services.identity.rotate {stage,switch,retire} …`.

Nothing is restarted and no call fails: `stage` makes a key and has it trusted, `switch` has identity sign with it, and
`retire`, once every passport of the old one is over, ends the trust in that. Both keys verify in between. Exit codes:
0 done, 1 can't be done now, 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services._mesh.config import ConfigError
from services._mesh.tokens import MAX_LIFETIME_SECONDS, SKEW_SECONDS, SigningKey

EXIT_DONE, EXIT_REFUSED = 0, 1
# Everybody reads a changed trust folder within a second, and signs with a changed key within another.
_NOTICED_SECONDS = 5.0
OVERLAP_SECONDS = MAX_LIFETIME_SECONDS + SKEW_SECONDS + _NOTICED_SECONDS


class CannotRotate(Exception):
    """This step can't be done now; the text says why, and what comes first."""


def stage(new: Path, trust: Path) -> str:
    """Make a key in `new`, and trust it beside those in the file `trust`. Raises CannotRotate."""
    document = _trusted(trust)
    if len(document["keys"]) != 1:
        raise CannotRotate(f"{trust} has {len(document['keys'])} keys: end the rotation under way first (retire)")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
    except FileExistsError as error:
        raise CannotRotate(f"{new} exists: a key is never written over") from error
    made = SigningKey.load(new, "production")
    document["keys"] += made.public_jwks()["keys"]
    _replace(trust, document)
    return f"made {made.kid}; hand {trust.name} to every process's trust folder, then switch"


def switch(key: Path, new: Path, trust: Path) -> str:
    """Have identity sign with `new` from now on. Raises CannotRotate where it isn't trusted yet."""
    made = SigningKey.load(new, "production")
    if made.kid not in (each["kid"] for each in _trusted(trust)["keys"]):
        raise CannotRotate(f"{new} isn't in {trust}: nobody would believe it (stage)")
    age = time.time() - trust.stat().st_mtime
    if age < _NOTICED_SECONDS:
        raise CannotRotate(f"{trust} is {age:.0f} s old: wait until everybody has read it ({_NOTICED_SECONDS:.0f} s)")
    os.utime(new)  # What `retire` counts from.
    new.replace(key)
    return f"identity signs with {made.kid} from now on; retire in {OVERLAP_SECONDS:.0f} s"


def retire(key: Path, trust: Path) -> str:
    """End the trust in all keys but the one that identity signs with. Raises CannotRotate while passports of another
    may be in use.
    """
    document, kid = _trusted(trust), SigningKey.load(key, "production").kid
    kept = [each for each in document["keys"] if each["kid"] == kid]
    if not kept or len(document["keys"]) == 1:
        raise CannotRotate("no rotation is under way")
    age = time.time() - key.stat().st_mtime
    if age < OVERLAP_SECONDS:
        raise CannotRotate(f"passports of the old key live on for {OVERLAP_SECONDS - age:.0f} s: wait")
    _replace(trust, {"keys": kept})
    return f"only {kid} is trusted; hand {trust.name} to every process's trust folder"


def _trusted(trust: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(trust.read_text("utf-8"))
    if not isinstance(document.get("keys"), list):
        raise ValueError(f"{trust} isn't a JWKS document")
    return document


def _replace(trust: Path, document: dict[str, Any]) -> None:
    """In one step: whoever reads it meanwhile sees the old one or the new one."""
    beside = trust.with_suffix(".new")
    beside.write_text(json.dumps(document))
    beside.replace(trust)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m services.identity.rotate", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    for name, (_, files) in _STEPS.items():
        taken = steps.add_parser(name)
        for file in files:
            taken.add_argument(f"--{file}", type=Path, required=True, help=_HELP[file])
    given = vars(parser.parse_args(arguments))
    step, _ = _STEPS[given.pop("step")]
    try:
        print(step(**given))
    except (CannotRotate, ConfigError, OSError, ValueError) as error:
        print(f"rotate: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return EXIT_DONE


_STEPS: Mapping[str, tuple[Callable[..., str], tuple[str, ...]]] = {
    "stage": (stage, ("new", "trust")),
    "switch": (switch, ("key", "new", "trust")),
    "retire": (retire, ("key", "trust")),
}
_HELP = {
    "key": "identity's signing key, as its configuration names it ([signing] key)",
    "new": "the new key's file",
    "trust": "identity.jwks.json in the trust folder",
}

if __name__ == "__main__":
    sys.exit(main())
