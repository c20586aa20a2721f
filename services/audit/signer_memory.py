"""What the signer remembers, shard by shard: one file for each origin. Nothing in it is ever set back.

It is begun once, when the log is set up (`signer_begin.py`): a memory that is gone is never taken for a new one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from services.audit.model.signing import SignedHead
from services.audit.signer_state import SignerState


class MemoryUnusable(Exception):
    """The memory isn't there, or another signer has it; says which."""


class SignerMemory:
    """The files: `path` for the first shard, and "<stem>.<shard><suffix>" beside it for the others.

    Only what was `opened` may be signed with; made directly, it is for who reads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._states = {0: SignerState(path)}
        while self._file(len(self._states)).exists():
            self._states[len(self._states)] = SignerState(self._file(len(self._states)))
        self._lock: int | None = None

    @classmethod
    def opened(cls, path: Path, *, hold: bool = True) -> SignerMemory:
        """The memory for the one process that signs, which holds it until it ends. Raises MemoryUnusable, OSError.

        Without `hold` it is only looked at, beside the process that may have it.
        """
        if not path.exists():
            raise MemoryUnusable(f"{path} is missing: what was signed last isn't known")
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600) if hold else None
        try:
            if lock is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            made = cls(path)
            missing = [shard for shard in range(made.of(0).newest + 1) if not made._file(shard).exists()]
            if missing:
                raise MemoryUnusable(f"{made._file(missing[-1])} is missing: what was signed last isn't known")
        except BlockingIOError:
            _let_go(lock)
            raise MemoryUnusable(f"another signer uses {path}") from None
        except BaseException:
            _let_go(lock)
            raise
        made._lock = lock
        return made

    @classmethod
    def begin(cls, path: Path, opened: int, shard: int = 0, head: SignedHead | None = None) -> None:
        """Make a memory where there is none: of a new log, or one that knows no more than `head`, of `shard`.

        `opened` is the year in which the shard was opened.

        Raises MemoryUnusable where there is one, OSError.
        """
        made = cls(path)
        if path.exists() or len(made._states) > 1:
            raise MemoryUnusable(f"{path} is there already: there is no reset")
        for number in range(shard, -1, -1):  # The first shard's last: without it the others are no memory.
            state = SignerState(made._file(number))
            state.begin(opened, 0 if number else shard, head if number == shard else None)

    @property
    def newest(self) -> int:
        """The newest shard of which a head was signed; 0 when none was at all."""
        return max((shard for shard, state in self._states.items() if state.head.size), default=0)

    def of(self, shard: int) -> SignerState:
        """The memory of one shard."""
        if shard not in self._states:
            self._states[shard] = SignerState(self._file(shard))
        return self._states[shard]

    def settle(self) -> None:
        """Have the first shard's file say which shard is the newest, so that a later one's can't go unnoticed."""
        self.of(0).tell_newest(self.newest)

    def close(self) -> None:
        """Let another process have it."""
        _let_go(self._lock)
        self._lock = None

    def _file(self, shard: int) -> Path:
        return self._path.with_name(f"{self._path.stem}.{shard}{self._path.suffix}") if shard else self._path


def _let_go(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
