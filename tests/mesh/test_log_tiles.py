"""The whole log at the live edge, as C2SP tlog-tiles has it: for members of the platform, and nobody else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from recoup.audit.v1 import audit_service_pb2
from recoup_client.mesh import PLATFORM_ORGANIZATION_ID, Certificate, MeshClient
from services.audit.model.notes import VerifierKey, verify
from services.audit.model.tiles import Tile, read_bundle, tiles_of
from tests.support.appending import append
from tests.support.command import DONE, recoup, said
from tests.support.log import event
from tests.support.mesh import Person, TestMesh, until

pytestmark = pytest.mark.xdist_group("mesh")


@pytest.fixture
def auditor(made: TestMesh) -> Person:
    return made.rest("platform", "Auditor")


async def grown(made: TestMesh, auditor: Person) -> str:
    """A checkpoint over more leaves than a tile is wide."""
    organization = uuid4()
    last = max(await append(made.mesh, [event(n + 1, organization) for n in range(300)], "identity"))

    def signed() -> str | None:
        note = auditor.client.get("/log/checkpoint").text
        return note if int(note.split("\n")[1]) > last else None

    return until(signed)


def mth(hashes: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of leaves' hashes: RFC 6962, section 2.1, word for word."""
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(hashes[:k]) + mth(hashes[k:])).digest()


def fetched(auditor: Person, tile: Tile, prefix: str = "/log") -> list[bytes]:
    answer = auditor.client.get(f"{prefix}/tile/{tile.name()}")
    assert (answer.status_code, len(answer.content)) == (200, 32 * tile.width), answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    return [answer.content[place : place + 32] for place in range(0, len(answer.content), 32)]


async def test_checkpoint_and_tiles_rebuild_the_signed_root(made: TestMesh, auditor: Person) -> None:
    note = await grown(made, auditor)
    origin, size_text, root_text = note.split("\n")[:3]
    size, root = int(size_text), base64.b64decode(root_text)
    assert origin == made.mesh.installation.log.origin
    verify(note, VerifierKey.parse(made.mesh.installation.log.verifier_key))
    tiles = {tile: fetched(auditor, tile) for tile in tiles_of(size)}
    assert {tile.width == 256 for tile in tiles} == {True, False}
    hashes = [each for tile in sorted(tiles, key=lambda t: t.index) if tile.level == 0 for each in tiles[tile]]
    assert len(hashes) == size
    assert mth(hashes) == root
    for tile, held in tiles.items():
        if tile.level == 1:
            assert held == [mth(tiles[Tile(0, tile.first + place)]) for place in range(tile.width)]
    # By its number the shard is the same log.
    assert fetched(auditor, Tile(0, 0), "/log/shards/0") == hashes[:256]
    assert auditor.client.get("/log/shards/0/checkpoint").text.startswith(f"{origin}\n")


async def test_full_tiles_and_bundles_come_into_the_archive(made: TestMesh, auditor: Person) -> None:
    await grown(made, auditor)
    below = made.mesh.state / "archive" / made.mesh.installation.log.origin

    def archived() -> bytes | None:
        path = below / "tile" / "entries" / "000"
        return path.read_bytes() if path.exists() else None

    entries = read_bundle(until(archived))
    assert (below / "tile" / "0" / "000").read_bytes() == b"".join(fetched(auditor, Tile(0, 0)))
    assert [hashlib.sha256(b"\x00" + entry).digest() for entry in entries] == fetched(auditor, Tile(0, 0))
    key = VerifierKey.parse(made.mesh.installation.log.verifier_key)
    for note in (below / "checkpoints").iterdir():
        assert verify(note.read_text(), key).split("\n")[1] == note.name


async def test_headers_and_304(made: TestMesh, auditor: Person) -> None:
    await grown(made, auditor)
    note = auditor.client.get("/log/checkpoint")
    assert note.headers["content-type"] == "text/plain; charset=utf-8"
    full = auditor.client.get("/log/tile/0/000")
    # Nothing between keeps an authenticated answer, not even one that can't change (SECURITY-MODEL: no-store).
    assert full.headers["cache-control"] == note.headers["cache-control"] == "no-store"
    again = auditor.client.get("/log/tile/0/000", headers={"if-none-match": full.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", full.headers["etag"])
    assert auditor.client.get("/log/tile/0/000", headers={"if-none-match": '"x"'}).content == full.content


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/log/tile/0/1", 400, "FIELD_INVALID"),
        ("/log/tile/0/x000/000", 400, "FIELD_INVALID"),
        ("/log/tile/64/000", 400, "FIELD_INVALID"),
        ("/log/tile/0/000.p/256", 400, "FIELD_INVALID"),
        ("/log/tile/0/000.p/0", 400, "FIELD_INVALID"),
        ("/log/tile/0/000%2Fp", 400, "FIELD_INVALID"),
        ("/log/tile/0/" + "x000/" * 40 + "000", 400, "FIELD_INVALID"),
        ("/log/tile/0/x999/x999/999", 404, "RESOURCE_NOT_FOUND"),
        ("/log/tile/40/000", 404, "RESOURCE_NOT_FOUND"),
        ("/log/tile/entries/000", 404, "RESOURCE_NOT_FOUND"),
        ("/log/entries/000", 404, "ROUTE_NOT_FOUND"),
        ("/log/shards/1/checkpoint", 404, "RESOURCE_NOT_FOUND"),
        ("/log/shards/7/tile/0/000", 404, "RESOURCE_NOT_FOUND"),
        ("/log/shards/-1/checkpoint", 400, "FIELD_INVALID"),
        ("/log/shards/99999999/checkpoint", 400, "FIELD_INVALID"),
        ("/log/shards/x/checkpoint", 400, "FIELD_INVALID"),
    ],
)
def test_what_isnt_there_is_refused_with_a_reason(auditor: Person, path: str, status: int, reason: str) -> None:
    answer = auditor.client.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_who_isnt_of_the_platform_is_refused(made: TestMesh) -> None:
    for path in ("/log/checkpoint", "/log/tile/0/000", "/log/tile/entries/000"):
        for role in ("Admin", "Auditor"):
            answer: httpx.Response = made.rest("acme", role).client.get(path)
            assert (answer.status_code, answer.json()["reason"]) == (403, "PERMISSION_MISSING")
            assert answer.json()["metadata"] == {"permission": "audit.log.read"}
        assert made.rest("platform", "Admin").client.get(path).status_code == 403
        stranger = Person(made.mesh, "acme", "")
        assert stranger.client.get(path).status_code == 401
        stranger.client.close()


async def test_the_command_line_reads_both(made: TestMesh, auditor: Person, tmp_path: Path) -> None:
    await grown(made, auditor)
    printed = recoup(made, auditor.token, "log", "checkpoint")
    assert (printed.exit_code, printed.stderr) == (0, "")
    verify(printed.stdout, VerifierKey.parse(made.mesh.installation.log.verifier_key))
    told = said(recoup(made, auditor.token, "--json", "log", "checkpoint", "-o", str(tmp_path / "note")))
    assert (tmp_path / "note").read_text() == told["note"]
    full = b"".join(fetched(auditor, Tile(0, 0)))
    whole = recoup(made, auditor.token, "log", "tile", "0", "0", "--shard", "0", "-o", str(tmp_path / "tile"))
    assert whole.exit_code == DONE, whole.stderr
    assert (tmp_path / "tile").read_bytes() == full
    assert recoup(made, auditor.token, "log", "tile", "0", "0", "--width", "1").stdout == f"{full[:32].hex()}\n"
    # A tile that isn't full is asked for in the width that the newest checkpoint gives it.
    partial = said(recoup(made, auditor.token, "log", "tile", "1", "0", "--json"))
    assert partial["tile"] == f"1/000.p/{len(partial['hashes'])}"
    assert base64.b64decode(partial["hashes"][0]) == mth([full[place : place + 32] for place in range(0, 8192, 32)])
    missing = recoup(made, auditor.token, "log", "tile", "7", "0")
    assert (missing.exit_code, "doesn't have it" in missing.stderr) == (1, True)
    refused = recoup(made, made.rest("acme", "Admin").token, "log", "checkpoint")
    assert (refused.exit_code, "PERMISSION_MISSING" in refused.stderr) == (1, True)


async def test_the_typed_client_reads_both(made: TestMesh, auditor: Person) -> None:
    installation, folder = made.mesh.installation, made.mesh.state / "clients" / "finops-tools"
    addresses = {name: f"127.0.0.1:{port}" for name, port in installation.ports.items()}
    certificate = Certificate(installation.ca.cert_file, folder / "tls.pem", folder / "tls.key")
    await grown(made, auditor)
    async with MeshClient(addresses, certificate, auditor.token, PLATFORM_ORGANIZATION_ID) as mesh:
        note = (await mesh.audit.GetLogCheckpoint(audit_service_pb2.GetLogCheckpointRequest())).body
        tile = (await mesh.audit.GetLogTile(audit_service_pb2.GetLogTileRequest(shard=0, tile="0/000"))).body
    assert note.content_type == "text/plain; charset=utf-8"
    assert tile.data == b"".join(fetched(auditor, Tile(0, 0)))
