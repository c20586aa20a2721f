"""Checks signed notes and tree heads, and reads inclusion proofs (C2SP signed-note, tlog-checkpoint, tlog-proof)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from recoup_verify.documents import CannotTell, Disproved, decode
from recoup_verify.tree import read_hashes

LOG, WITNESS = b"\x01", b"\x04"
_DASH, _PROOF = "\u2014 ", "c2sp.org/tlog-proof@v1"
_MAX_LINES = 64
# Where something stands: the shard of the log, and the index or size in it.
Place = tuple[int, int]


class Key(NamedTuple):
    """A verifier key: its name, which is the log's origin, a root's or a witness's, and 32 bytes."""

    name: str
    public: bytes
    algorithm: bytes = LOG

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ newline ‖ algorithm ‖ key), the first four bytes."""
        return sha256(self.name.encode() + b"\n" + self.algorithm + self.public).digest()[:4]

    @property
    def is_local(self) -> bool:
        """Whether the key says of itself that it signs nothing that counts."""
        return ".local.invalid" in self.name

    def has_signed(self, signature: bytes, text: str) -> bool:
        """Whether this is the key's signature over a note's text; a witness's has the time before it."""
        if self.algorithm == LOG:
            return is_signed_by(self.public, signature, text.encode())
        at = int.from_bytes(signature[:8], "big")
        return at < 2**63 and is_signed_by(self.public, signature[8:], f"cosignature/v1\ntime {at}\n{text}".encode())


def parse_key(text: str, algorithm: bytes = LOG) -> Key:
    """A key as "<name>+<id>+<base64>". Raises CannotTell."""
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        raw = decode(encoded, "the key")
    except (ValueError, Disproved) as error:
        raise CannotTell("this isn't a verifier key: <name>+<id>+<base64>") from error
    key = Key(name, raw[1:], algorithm)
    if not name or raw[:1] != algorithm or len(key.public) != 32 or key.key_id.hex() != key_id:
        raise CannotTell(f"this isn't an Ed25519 verifier key of a {'log' if algorithm == LOG else 'witness'}")
    return key


def is_signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the 32 bytes of an Ed25519 key verify the signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class RangedKey(NamedTuple):
    """A key that is good from `start` to before `end` (None: no end yet): tree sizes for a log's key, else leaves."""

    public: bytes
    start: Place = (0, 0)
    end: Place | None = None

    def covers(self, place: Place) -> bool:
        """Whether the key may sign something that stands there."""
        return self.start <= place and (self.end is None or place < self.end)


class Trust(NamedTuple):
    """Whom to believe about a log: what --key, --witness and --quorum say, and what a key manifest adds to it.

    `witnesses` are the user's, `wanted` of whom must cosign any head; `listed` are the manifest's, `quorum` of whom
    must cosign a receipt's. `keys` are the manifest's, by what they are for and by SHA-256; `root` is its root's.
    """

    key: Key
    witnesses: Sequence[Key] = ()
    wanted: int = 0
    name: str = ""
    logs: Sequence[RangedKey] = ()
    keys: Mapping[str, Mapping[str, RangedKey]] = {}
    listed: Sequence[Key] = ()
    quorum: int = 0
    root: Key | None = None

    @classmethod
    def of(cls, key: Key | Trust) -> Trust:
        """Trust in a log's key and nothing else, where no more is given."""
        return key if isinstance(key, Trust) else cls(key, name=key.name, logs=[RangedKey(key.public)])


class Head(NamedTuple):
    """A tree head that the log signed, and the names of the witnesses that cosigned it."""

    origin: str
    size: int
    root: bytes
    shard: int = 0
    cosigned: Sequence[str] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """The head for programs."""
        return {"origin": self.origin, "size": self.size, "root": self.root.hex(), "cosigned": list(self.cosigned)}

    @property
    def countersigned(self) -> str:
        """Who else vouches that everybody is shown this head, in words."""
        count = len(self.cosigned)
        if not count:
            return "nobody else has countersigned its head"
        who = f"{count} {'witness' if count == 1 else 'witnesses'} countersigned its head ({', '.join(self.cosigned)})"
        return f"{who}, which counts as far as they aren't under the operator's control"


def signed_by(note: str, keys: Sequence[Key], what: str) -> tuple[str, list[Key]]:
    """A note's text and the keys that signed it: each line is of one of `keys`, and none is twice. Raises Disproved."""
    body, separator, signatures = note.rpartition("\n\n")
    lines = signatures.split("\n")
    if not separator or lines.pop() or not 0 < len(lines) <= _MAX_LINES:
        raise Disproved(f"{what} isn't a note with signature lines")
    found = list[Key]()
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        raw = decode(encoded, f"{what}'s signature")
        key = next((each for each in keys if (each.name, each.key_id) == (name, raw[:4])), None)
        if not line.startswith(_DASH) or key is None or key in found:
            raise Disproved(
                f"{what} isn't signed by the key that you gave, or has a signature line that is nobody's (while a log's"
                " key is rotated there are two: its key manifest, with --keys, lists both)"
            )
        if not key.has_signed(raw[4:], body + "\n"):
            raise Disproved(f"{what}'s signature is wrong: its text was changed, or another key signed it")
        found.append(key)
    return body + "\n", found


def verified_head(note: str, key: Key | Trust, what: str = "the checkpoint") -> Head:
    """The tree head in a note that the log signed, and beside it nobody but known witnesses. Raises Disproved."""
    trust, origin = Trust.of(key), note.partition("\n")[0]
    shard = shard_of(origin, trust) or 0
    logs = [Key(origin if shard else trust.name, each.public) for each in trust.logs]
    witnesses = {*trust.witnesses, *trust.listed}
    text, found = signed_by(note, [*logs, *witnesses], what)
    lines = text.split("\n")
    size = whole_number(lines[1]) if len(lines) == 4 else None
    if size is None or lines[0] != logs[0].name or lines[3] or not {*logs} & {*found}:
        raise Disproved(f"{what}'s text isn't a tree head of this log")
    root = decode(lines[2], f"{what}'s root")
    if len(root) != 32 or size == 0:
        raise Disproved(f"{what}'s root or size can't be")
    # Another key's line beside a good one counts for nothing: while a key ends, one more head may still carry it.
    if not any(each in found and ranged.covers((shard, size)) for each, ranged in zip(logs, trust.logs, strict=True)):
        raise Disproved(f"{what} is signed by a key of the log that wasn't good for that part of it")
    counted = {each.name for each in trust.witnesses or trust.listed if each in found}
    if len(counted) < trust.wanted:
        raise Disproved(f"{what} is cosigned by {len(counted)} of the {trust.wanted} witnesses that you ask for")
    return Head(origin, size, root, shard, tuple(each.name for each in found if each in witnesses))


def shard_of(origin: str, trust: Trust) -> int | None:
    """The shard that has this origin: the log's name, or <name>/<k> for a later one, which names its keys, too."""
    name, _, number = origin.rpartition("/")
    return 0 if origin == trust.name else (whole_number(number) or None) if name == trust.name else None


def whole_number(text: str) -> int | None:
    """A number from 0 to 2^63 - 1 in its one spelling, or None."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        return None
    number = int(text)
    return number if str(number) == text and number < 2**63 else None


class Inclusion(NamedTuple):
    """A C2SP tlog-proof: where the leaf stands, and how to come from there to the head, which isn't verified yet."""

    position: int
    hashes: Sequence[bytes]
    note: str = ""


def parse_proof(text: str) -> Inclusion:
    """Read a tlog-proof in its one spelling, without an extra line. Raises Disproved."""
    top, separator, note = text.partition("\n\n")
    first, numbered, *hashes = [*top.split("\n"), ""]
    index = whole_number(numbered.removeprefix("index "))
    if not separator or first != _PROOF or not numbered.startswith("index ") or index is None:
        raise Disproved("the proof isn't a tlog-proof")
    return Inclusion(index, read_hashes(hashes[:-1]), note)
