"""Rotates the log's key of an installation on one machine: what three operators would do, in one go.

The signer's gets a key, the witness's lets both keys in, and the root's, whose machine would be offline, signs.
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import httpx

from recoup_local.ca import write_secret
from recoup_local.cloud.simclock import SimClock
from recoup_local.issuer import Issuer, find_person, organization_id
from services.audit.model.notes import Note, NoteInvalid
from services.audit.model.rotation import CannotRotate
from services.audit.rotate import Root, new_key

SECONDS = 20.0
_ORGANIZATION, _ROLE = "acme", "Auditor"


def rotate_log_key(state: Path, gateway: str, *, end: bool) -> list[str]:
    """Begin a rotation, or end the one under way; returns the lines of the log's keys. Raises CannotRotate."""
    signer, path = state / "processes" / "audit-signer", state / "processes" / "audit-signer" / "manifest.txt"
    note, now = path.read_text("utf-8"), SimClock(state / "clock.json").now()
    name = note.partition("/keys\n")[0]
    root = Root(name, state / "offline" / "root.key", state / "offline" / "rotation.json")
    with _client(state, gateway) as client:
        checkpoint = _newest(client)["checkpoint"]["note"]
        try:
            made = root.end(note, checkpoint, now) if end else _begun(root, note, checkpoint, state, signer)
        except NoteInvalid as error:
            raise CannotRotate(str(error)) from error
        beside = path.with_suffix(".brought")
        write_secret(beside, made).replace(path)
        return _taken_up(client, Note.parse(made).text)


def _begun(root: Root, note: str, checkpoint: str, state: Path, signer: Path) -> str:
    name = note.partition("/keys\n")[0]
    number = len(list((signer / "keys").glob("*.key"))) + 2
    key_file = signer / "keys" / f"log-{number}.key"
    vkey = new_key(name, key_file)
    try:
        made = root.begin(note, vkey, checkpoint, SimClock(state / "clock.json").now())
    except (CannotRotate, NoteInvalid):
        key_file.unlink()
        raise
    # The witness reads this file anew at each request; both keys are the log's from now on.
    known = state / "processes" / "audit-witness" / "logs.vkeys"
    known.write_text(known.read_text() + vkey.text() + "\n")
    (state / "log.vkey").write_text(vkey.text() + "\n")
    return made


def _client(state: Path, gateway: str) -> httpx.Client:
    token = Issuer(state / "issuer").token(find_person(_ORGANIZATION, _ROLE), aal=2)
    context = ssl.create_default_context(cafile=str(state / "ca" / "ca.pem"))
    return httpx.Client(base_url=gateway, verify=context, timeout=10.0, headers={"authorization": f"Bearer {token}"})


def _newest(client: httpx.Client) -> dict[str, dict[str, str]]:
    answer = client.get(f"/v1/organizations/{organization_id(_ORGANIZATION)}/log/checkpoint")
    if answer.status_code != 200:
        raise CannotRotate(f"the log's newest checkpoint can't be read: {answer.text[:200]}")
    found: dict[str, dict[str, str]] = answer.json()
    return found


def _taken_up(client: httpx.Client, text: str) -> list[str]:
    """Wait until the signer hands the new manifest out; it says the keys."""
    deadline = time.monotonic() + SECONDS
    while True:
        found = str(_newest(client)["keyManifest"])
        if Note.parse(found).text == text:
            return [line for line in text.splitlines() if line.startswith("log ")]
        if time.monotonic() > deadline:
            raise CannotRotate("the signer hasn't taken the new manifest up; see its log")
        time.sleep(0.1)
