"""What a witness reads (C2SP tlog-witness, `add-checkpoint`), and the one rule by which it cosigns. Pure.

It cosigns a checkpoint that continues the last one that it cosigned of the same log, and no other, ever.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.audit.model.merkle import EMPTY_ROOT, ProofInvalid, verify_consistency
from services.audit.model.notes import (
    Note,
    NoteInvalid,
    TreeHead,
    VerifierKey,
    decode_base64,
    is_signed_by,
    parse_size,
)

# 63 hashes and 32 signatures, of which some may be of post-quantum algorithms.
MAX_BODY_BYTES = 64 * 1024
MAX_HASHES = 63
BAD_REQUEST, FORBIDDEN, NOT_FOUND, CONFLICT, UNPROCESSABLE = 400, 403, 404, 409, 422
_SHARD = re.compile(r"/[1-9][0-9]{0,3}")


class Refused(Exception):
    """Not cosigned: the HTTP status that C2SP gives to the reason, and for a conflict the size that it should be."""

    def __init__(self, status: int, why: str, size: int | None = None) -> None:
        super().__init__(why)
        self.status, self.size = status, size


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The last checkpoint of a log that was cosigned."""

    size: int
    root: bytes
    note: str


@dataclass(frozen=True, slots=True)
class Submission:
    """A checkpoint on its way to a witness, with the proof that it continues the tree of size `old`."""

    old: int
    proof: Sequence[bytes]
    note: str

    def text(self) -> str:
        """The body of an `add-checkpoint` request."""
        hashes = "".join(f"{base64.b64encode(item).decode()}\n" for item in self.proof)
        return f"old {self.old}\n{hashes}\n{self.note}"

    @classmethod
    def parse(cls, body: bytes) -> Submission:
        """Read the body of a request. Raises Refused."""
        try:
            head, separator, note = body.decode("utf-8").partition("\n\n")
            first, *lines = head.split("\n")
            old = parse_size(first.removeprefix("old "))
            if not separator or not first.startswith("old ") or old is None or len(lines) > MAX_HASHES:
                raise NoteInvalid(f'"old <size>", at most {MAX_HASHES} hashes and an empty line must come first')
            proof = [decode_base64(line, "a hash of the proof") for line in lines]
            if any(len(item) != 32 for item in proof):
                raise NoteInvalid("a hash of the proof hasn't 32 bytes")
        except (UnicodeDecodeError, NoteInvalid) as error:
            raise Refused(BAD_REQUEST, f"this isn't an add-checkpoint request: {error}") from error
        return cls(old, proof, note)


class KnownLogs:
    """The logs that a witness knows, by name, each with the keys that it trusts for it.

    A log's shards have the origins "<name>/<k>", under the same keys.
    """

    def __init__(self, keys: Mapping[str, Sequence[VerifierKey]]) -> None:
        self._keys = keys

    def checked(self, note: str) -> TreeHead:
        """The head in a checkpoint that a known key of a known log signed. Raises Refused."""
        try:
            parsed = Note.parse(note)
            head = TreeHead.parse(parsed.text)
        except NoteInvalid as error:
            raise Refused(BAD_REQUEST, str(error)) from error
        keys = [key.named(head.origin) for key in self._of(head.origin)]
        signed = [
            is_signed_by(key.public, line.signature, parsed.text.encode())
            for key in keys
            for line in parsed.lines
            if (line.name, line.key_id) == (key.name, key.key_id)
        ]
        if not signed or not all(signed):
            raise Refused(FORBIDDEN, "none of the keys that are trusted for this log signed the checkpoint")
        return head

    def _of(self, origin: str) -> Sequence[VerifierKey]:
        for name, keys in self._keys.items():
            if origin == name or (origin.startswith(name) and _SHARD.fullmatch(origin, len(name))):
                return keys
        raise Refused(NOT_FOUND, "this witness doesn't know the log")


def check_continues(submission: Submission, head: TreeHead, last: Cosigned | None) -> None:
    """Raise Refused unless `head` continues what was cosigned last."""
    known = last.size if last else 0
    if submission.old > head.size:
        raise Refused(BAD_REQUEST, "the old size is larger than the checkpoint's")
    if submission.old != known:
        raise Refused(CONFLICT, f"size {known} was cosigned last, not {submission.old}", known)
    if known == 0:
        if submission.proof or (head.size == 0 and head.root != EMPTY_ROOT):
            raise Refused(UNPROCESSABLE, "nothing was cosigned yet, so there is nothing to prove")
        return
    assert last is not None
    if head.size == known and head.root != last.root:
        raise Refused(CONFLICT, f"another tree of size {known} was cosigned: the log was forked", known)
    try:
        verify_consistency(known, head.size, last.root, head.root, submission.proof)
    except ProofInvalid as error:
        raise Refused(UNPROCESSABLE, f"the checkpoint doesn't continue size {known}: {error}") from error
