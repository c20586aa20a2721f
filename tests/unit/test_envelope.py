"""What the envelope must not do: open with anything of it swapped, flipped, cut or set back to an older version."""

from __future__ import annotations

import itertools
from pathlib import Path
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from services._mesh.envelope import (
    MAX_PLAINTEXT,
    MAX_REFERENCE,
    VERSION,
    open_envelope,
    parse,
    rewrap,
    seal,
)
from services._mesh.errors import Problem
from services._mesh.kms.interface import EnvelopeBroken, Kek, KeyService, SecretContext
from tests.support.kms import KEK, RING, CarelessKms, Ring, context

OTHERS = (
    context(organization_id=UUID(int=9)),
    context(credential_id=UUID(int=9)),
    context(purpose="webhook.key"),
)
KMS_KINDS = ("file", "careless")


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path)


def kms_of(kind: str, ring: Ring) -> object:
    return ring.whole if kind == "file" else CarelessKms()


@pytest.mark.parametrize("kind", KMS_KINDS)
async def test_what_was_sealed_opens_in_its_own_context_only(kind: str, ring: Ring) -> None:
    """Also where the key service ignores the context, as Azure Key Vault does."""
    kms = kms_of(kind, ring)
    envelope = await seal(b"a secret", context(), KEK, kms)
    assert await open_envelope(envelope, context(), kms) == b"a secret"
    assert b"a secret" not in envelope
    for other in OTHERS:
        with pytest.raises(EnvelopeBroken):
            await open_envelope(envelope, other, kms)


@pytest.mark.parametrize("kind", KMS_KINDS)
@pytest.mark.parametrize("other", OTHERS)
async def test_parts_of_two_envelopes_do_not_mix(kind: str, other: SecretContext, ring: Ring) -> None:
    """Of two organizations, credentials or purposes, and of two secrets of one: each part of the one in the other."""
    kms = kms_of(kind, ring)
    own = await seal(b"one", context(), KEK, kms)
    for theirs in (await seal(b"two", other, KEK, kms), await seal(b"two", context(), KEK, kms)):
        cuts = part_ends(own)
        for start, end in itertools.pairwise(cuts):
            mixed = own[:start] + theirs[start:end] + own[end:]
            if mixed != own:
                with pytest.raises(EnvelopeBroken):
                    await open_envelope(mixed, context(), kms)


def part_ends(envelope: bytes) -> list[int]:
    """Where the wrapped key, the commitment, the nonce, the ciphertext and the tag begin, and the end."""
    parts = parse(envelope)
    payload = len(parts.header)
    return [payload - 44 - len(parts.wrapped), payload - 44, payload - 12, payload, len(envelope) - 16, len(envelope)]


async def test_every_bit_of_the_header_and_the_payload_is_covered(ring: Ring) -> None:
    envelope = await seal(b"x" * 40, context(), KEK, ring.whole)
    for place in range(len(envelope)):
        for bit in range(8) if place < 8 else (0,):
            changed = bytearray(envelope)
            changed[place] ^= 1 << bit
            with pytest.raises((EnvelopeBroken, Problem)):
                await open_envelope(bytes(changed), context(), ring.whole)


async def test_what_is_cut_or_goes_on_does_not_open(ring: Ring) -> None:
    envelope = await seal(b"x" * 40, context(), KEK, ring.whole)
    for length in range(len(envelope)):
        with pytest.raises((EnvelopeBroken, Problem)):
            await open_envelope(envelope[:length], context(), ring.whole)
    with pytest.raises(EnvelopeBroken):
        await open_envelope(envelope + b"\0", context(), ring.whole)


async def test_an_older_version_of_what_is_sealed_does_not_open(ring: Ring) -> None:
    """The version in the header, and the whole of it written as version 1 would: neither opens."""
    envelope = await seal(b"one", context(), KEK, ring.whole)
    parts = parse(envelope)
    name = parts.kek.reference.encode()
    older = bytes([1, 1, len(name)]) + name + envelope[4 + len(name) :]
    assert parse(older).version == 1
    for set_back in (older, bytes([1]) + envelope[1:], bytes([0]) + envelope[1:], bytes([3]) + envelope[1:]):
        with pytest.raises(EnvelopeBroken):
            await open_envelope(set_back, context(), ring.whole)
    # Whatever else it says, a version that isn't known isn't read, nor the first under any but the file KMS.
    for header in ((0, 1), (3, 1), (255, 1), (1, 2), (1, 3), (1, 4), (2, 0), (2, 5)):
        with pytest.raises(EnvelopeBroken):
            parse(bytes(header) + (older if header[0] == 1 else envelope)[2:])
    # Nor where the key service ignores the context, which has the version in it.
    careless = CarelessKms()
    envelope = await seal(b"one", context(), KEK, careless)
    older = bytes([1, 1, len(name)]) + name + envelope[4 + len(name) :]
    with pytest.raises(EnvelopeBroken):
        await open_envelope(older, context(), careless)


async def test_a_payload_under_another_key_is_told_by_its_commitment(ring: Ring) -> None:
    """Whoever can wrap can make a second key of the same length; the commitment names the first."""
    kms = CarelessKms()
    envelope = await seal(b"one", context(), KEK, kms)
    parts = parse(envelope)
    forged = envelope.replace(parts.wrapped, b"k" * 32)
    with pytest.raises(EnvelopeBroken):
        await open_envelope(forged, context(), kms)


async def test_nonces_and_keys_are_never_used_twice() -> None:
    kms = CarelessKms()
    made = [parse(await seal(b"same", context(), KEK, kms)) for _ in range(2000)]
    assert len({parts.nonce for parts in made}) == len({parts.wrapped for parts in made}) == 2000
    assert len({parts.commitment for parts in made}) == 2000


_PART = st.text("abz09_", max_size=8).map("p{}".format)
_PURPOSES = st.lists(_PART, min_size=1, max_size=3).map(".".join)


@given(st.binary(max_size=300), st.uuids(), st.uuids(), _PURPOSES)
async def test_any_secret_comes_back(plaintext: bytes, organization: UUID, credential: UUID, purpose: str) -> None:
    kms = CarelessKms()
    about = SecretContext(organization, credential, purpose)
    document = {"v": 2, "organization_id": str(organization), "credential_id": str(credential), "purpose": purpose}
    assert about.canonical(VERSION) == rfc8785.dumps(document)
    assert await open_envelope(await seal(plaintext, about, KEK, kms), about, kms) == plaintext


@pytest.mark.parametrize("purpose", ["", "A", "a.", ".a", 'a"', "a b", "a..b", "ä", "a" * 65, "a\n"])
def test_a_purpose_that_would_need_an_escape_is_none(purpose: str) -> None:
    with pytest.raises(ValueError, match="purpose"):
        context(purpose=purpose)


@given(st.binary(max_size=400))
async def test_what_is_no_envelope_is_refused(noise: bytes) -> None:
    for given_bytes in (noise, b"\x02\x01" + noise, b"\x01\x01" + noise):
        with pytest.raises((EnvelopeBroken, Problem)):
            await open_envelope(given_bytes, context(), Refusing())


class Refusing(CarelessKms):
    """Knows no key."""

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: object) -> bytes:
        raise EnvelopeBroken("no key")


async def test_limits(ring: Ring) -> None:
    envelope = await seal(b"x" * MAX_PLAINTEXT, context(), KEK, ring.sealing)
    assert await open_envelope(envelope, context(), ring.whole) == b"x" * MAX_PLAINTEXT
    with pytest.raises(ValueError, match="at most 8192"):
        await seal(b"x" * (MAX_PLAINTEXT + 1), context(), KEK, ring.sealing)
    with pytest.raises(ValueError, match="reference"):
        await seal(b"x", context(), Kek(KeyService.FILE, "x" * (MAX_REFERENCE + 1)), ring.sealing)


async def test_a_kek_is_exchanged_without_a_payload_being_opened(ring: Ring) -> None:
    newer = Kek(KeyService.FILE, f"{RING}/acme/2")
    before = await seal(b"secret", context(), KEK, ring.whole)
    after = await rewrap(before, context(), newer, ring.whole)
    assert parse(after).kek == newer
    assert (parse(after).nonce, parse(after).sealed) == (parse(before).nonce, parse(before).sealed)
    assert await open_envelope(after, context(), ring.whole) == b"secret"
    # It would have noticed, had it opened this one.
    await rewrap(before[:-1] + bytes([before[-1] ^ 1]), context(), newer, ring.whole)
    ring.set_states({KEK.reference: "RETIRED"})
    assert await open_envelope(after, context(), ring.whole) == b"secret"
    with pytest.raises(Problem):
        await open_envelope(before, context(), ring.whole)
    # A row that was swapped isn't blessed with a new wrapped key.
    for other in OTHERS:
        with pytest.raises(EnvelopeBroken):
            await rewrap(await seal(b"x", context(), KEK, CarelessKms()), other, newer, CarelessKms())


async def test_the_sealing_half_cannot_open(ring: Ring) -> None:
    """What the API process holds, used as an opener."""
    envelope = await seal(b"x", context(), KEK, ring.sealing)
    assert await open_envelope(envelope, context(), ring.whole) == b"x"
    with pytest.raises(Problem) as refused:
        await open_envelope(envelope, context(), ring.sealing)
    assert refused.value.metadata["cause"] == "DENIED"
