"""What the signer remembers, shard by shard: one file for each origin. Nothing in it is ever set back."""

from __future__ import annotations

from pathlib import Path

from services.audit.signer_state import SignerState


class SignerMemory:
    """The files: `path` for the first shard, and "<stem>.<shard><suffix>" beside it for the others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._states = {0: SignerState(path)}
        while self._file(len(self._states)).exists():
            self._states[len(self._states)] = SignerState(self._file(len(self._states)))

    @property
    def newest(self) -> int:
        """The newest shard of which a head was signed; 0 when none was at all."""
        return max((shard for shard, state in self._states.items() if state.head.size), default=0)

    def of(self, shard: int) -> SignerState:
        """The memory of one shard."""
        if shard not in self._states:
            self._states[shard] = SignerState(self._file(shard))
        return self._states[shard]

    def _file(self, shard: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{shard}{self._path.suffix}") if shard else self._path
