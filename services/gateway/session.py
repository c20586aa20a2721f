"""A credential as somebody shows it, whatever it is worth."""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Session(NamedTuple):
    """The credential itself, and what stands for it in all that is kept: from that, nobody makes the credential."""

    token: str
    digest: str

    @classmethod
    def of(cls, token: str) -> Session:
        """What is shown as `token`; nothing, where that is empty."""
        if not token:
            return NO_SESSION
        return cls(token, hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest())

    def __repr__(self) -> str:
        """Without the credential: an error may quote it."""
        return f"Session({self.digest[:8]})"


NO_SESSION = Session("", "")
