"""Commands for evidence: have a bundle made, fetch it, see which there are."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from recoup_client.auditing import Moment
from recoup_client.rest import at
from recoup_client.session import Group, Session

POLL_SECONDS = 1.0
_MOST_BYTES = 4 << 30
_BLOCK = 1 << 20
_OPEN = ("QUEUED", "RUNNING")


@click.group(cls=Group)
def evidence() -> None:
    """Have bundles of evidence made, that recoup-verify checks offline."""


@evidence.command("list")
@click.pass_obj
def evidence_list(session: Session) -> None:
    """List exports, newest first."""
    found = session.all("/evidenceExports", "exports")
    rows = [
        (e["exportId"], e["createdAt"][:19], f"{e['beginsAt'][:10]} to {e['endsAt'][:10]}", _scope(e), _state(e),
         e["sizeBytes"], e["expiresAt"][:10], e["problem"])
        for e in found["exports"]
    ]  # fmt: skip
    session.show(found, rows, "export", "asked for at", "period", "about", "state", "bytes", "kept until", "problem")


@evidence.command("export")
@click.option("--from", "begins", type=Moment(), required=True, help="what happened at this moment or later (UTC)")
@click.option("--to", "ends", type=Moment(), required=True, help="what happened before this moment (UTC)")
@click.option("--scope", multiple=True, help="only this: actions/<id>, or the beginning of a target; may be repeated")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="a new folder, or FILE.zip")
@click.option("--request-id", default=lambda: str(uuid4()), help="a UUID: the same one again goes on with that export")
@click.pass_obj
def evidence_export(
    session: Session, /, begins: str, ends: str, scope: tuple[str, ...], output: Path, request_id: str
) -> None:
    """Have a bundle made of a period, wait for it, and fetch it."""
    if output.exists():
        raise click.UsageError(f"{output} is there already: name a new folder or file")
    actions = [each.removeprefix("actions/") for each in scope if each.startswith("actions/")]
    targets = [each for each in scope if not each.startswith("actions/")]
    body = {
        "requestId": request_id,
        "scope": {"actionIds": actions, "targetPrefixes": targets},
        "beginsAt": begins,
        "endsAt": ends,
    }
    made = _wait(session, session.call("POST", "/evidenceExports", body)["export"])
    if _state(made) != "READY":
        raise click.ClickException(f"the export {made['exportId']} is {_state(made)}: {made['problem']}")
    try:
        _fetch(session, made, output)
    except OSError as error:
        raise click.ClickException(f"{output} can't be written: {error.strerror}") from error
    rows = [(made["exportId"], str(output), made["sizeBytes"], made["sha256"])]
    session.show({"export": made, "output": str(output)}, rows, "export", "written to", "bytes", "SHA-256 of the zip")
    click.echo(f"check it: recoup-verify bundle {output} --key LOG-KEY", err=True)


def _wait(session: Session, made: dict[str, Any]) -> dict[str, Any]:
    """Wait until an export is over, saying on stderr how far it is."""
    told = ""
    while _state(made) in _OPEN:
        share = f" {made['done']} of {made['total']}" if int(made["total"]) else f" {made['done']}"
        said = f"{_state(made).lower()} {made['phase']}{share if int(made['done']) else ''}".strip()
        if said != told:
            click.echo(f"recoup: {said}", err=True)
            told = said
        time.sleep(POLL_SECONDS)
        made = session.call("GET", at("/evidenceExports/{}", made["exportId"]))["export"]
    return made


def _fetch(session: Session, made: dict[str, Any], output: Path) -> None:
    """Fetch a bundle beside where it belongs, compare it, and put it there whole."""
    size = int(made["sizeBytes"])
    if not 0 < size <= _MOST_BYTES:
        raise click.ClickException(f"the gateway says that the bundle has {size} bytes, which no bundle has")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".recoup-", dir=output.parent) as folder:
        file = Path(folder) / "bundle.zip"
        _download(session, made, file, size)
        if output.suffix == ".zip":
            os.replace(file, output)
        else:
            unpacked = Path(folder) / "bundle"
            _unpack(file, unpacked)
            shutil.move(unpacked, output)


def _download(session: Session, made: dict[str, Any], file: Path, size: int) -> None:
    digest, have = hashlib.sha256(), 0
    with file.open("wb") as opened:
        while have < size:
            piece = session.piece(at("/evidenceExports/{}/content", made["exportId"]), have)
            if not piece or have + len(piece) > size:
                raise click.ClickException(f"the bundle ends after {have + len(piece)} bytes, and not after {size}")
            opened.write(piece)
            digest.update(piece)
            have += len(piece)
    if digest.hexdigest() != made["sha256"]:
        raise click.ClickException("what arrived isn't the bundle that was made: its SHA-256 is another")


def _unpack(file: Path, folder: Path) -> None:
    """Unpack a bundle; a name that leads out of the folder, or more than a bundle has, is refused."""
    left = _MOST_BYTES
    with zipfile.ZipFile(file) as packed:
        for entry in packed.infolist():
            target = folder / entry.filename
            if entry.is_dir() or ".." in target.parts or not target.is_relative_to(folder):
                raise click.ClickException(f"the bundle has a file that can't be: {entry.filename}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(entry) as source, target.open("xb") as sink:
                while block := source.read(_BLOCK):
                    left -= len(block)
                    if left < 0:
                        raise click.ClickException(f"the bundle has more than {_MOST_BYTES} bytes")
                    sink.write(block)


def _state(made: dict[str, Any]) -> str:
    return str(made["state"]).removeprefix("EVIDENCE_STATE_")


def _scope(made: dict[str, Any]) -> str:
    scope = made.get("scope") or {}
    named = [f"actions/{each}" for each in scope.get("actionIds", [])] + list(scope.get("targetPrefixes", []))
    return ", ".join(named) or "everything"
