"""The `recoup` command line without a mesh: how it ends, and what it prints, whatever stands at the other end."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click import unstyle
from click.testing import CliRunner, Result

from recoup_client import cli, evidence, program
from recoup_client.rest import Answer, GatewayRefused, GatewayUnreachable, Rest, WrongUse, at
from recoup_client.session import Session, Unwritten

DONE, REFUSED, WRONG_USE, UNREACHABLE = 0, 1, 2, 3
ORG, ACTION, HASH = "00000000-0000-4000-8000-000000000001", "01a213bd-ca1f-4b6c-9d5a-0123456789ab", "093e90de" * 8
MADE = {
    "actionId": ACTION,
    "state": "ACTION_STATE_REQUESTED",
    "resource": {"id": "vol-0123456789abcdef0"},
    "plan": {
        "summary": "Snapshot volume, then delete it",
        "rollback": "Create a volume from the snapshot",
        "estimate": {"amount": "12.345678", "currency": "USD"},
        "planHash": HASH,
    },
    "problem": "",
    "approvals": [],
    "steps": [],
    "checkpoints": [],
}
KEK = {
    "version": 3,
    "state": "KEK_STATE_ACTIVE",
    "provider": "KEK_PROVIDER_GOOGLE",
    "region": "europe-west3",
    "keyId": "projects/acme/locations/europe-west3/keyRings/recoup/cryptoKeys/acme",
    "keyVersion": "7",
    "createdAt": "2026-03-01T08:30:00Z",
}
KEY = {
    "keyId": "k1",
    "purpose": "KEY_PURPOSE_WEBHOOK",
    "name": "slack",
    "state": "KEY_STATE_ACTIVE",
    "createdAt": "2026-03-01T08:30:00Z",
}
GENERATED = "whsec_Z2VuZXJhdGVkIGJ5IHRoZSBzZXJ2aWNlLCBvbmNl"
ENDING = {**KEY, "state": "KEY_STATE_RETIRING", "endsAt": "2026-03-02T08:30:00Z"}
CONNECTION = {
    "state": "CONNECTION_STATE_ACTIVE",
    "provider": "aws",
    "discovered": [],
    "problem": "RecoupAct no longer allows it",
    "checkedAt": "2026-03-01T08:30:00Z",
    "roleChecks": [{"roleArn": "arn:aws:iam::111111111111:role/RecoupAct", "withExternalId": "ALLOWED"}],
    "permissionChecks": [
        {
            "roleArn": "arn:aws:iam::111111111111:role/RecoupAct",
            "permission": "ec2:DeleteVolume",
            "outcome": "LOST",
            "fix": "Allow ec2:DeleteVolume",
        }
    ],
}
ROTATION = {
    "state": "ROTATION_STATE_FAILED",
    "replacedAccessKeyId": "AKIAOLD",
    "accessKeyId": "",
    "startedAt": "2026-03-01T08:30:00Z",
    "problem": "RecoupScan refuses us",
    "advice": "deactivate the access key",
}
ANSWERS: dict[str, Any] = {
    f"/v1/organizations/{ORG}/connectionPlans": {"externalId": "recoup-1", "document": "the roles, as a text\n"},
    f"/v1/organizations/{ORG}/connections/c1": {"connection": CONNECTION},
    f"/v1/organizations/{ORG}/staticKeys": {"staticKeys": "STATIC_KEYS_FORBIDDEN"},
    f"/v1/organizations/{ORG}/actions/{ACTION}": {"action": MADE},
    f"/v1/organizations/{ORG}/actions": {"actions": [MADE], "nextPageToken": ""},
    f"/v1/organizations/{ORG}/actions/many": {"action": {**MADE, "problem": "x" * 400_000}},
    f"/v1/organizations/{ORG}/actions/named": {"action": {**MADE, "problem": "zurück 💸"}},
    f"/v1/organizations/{ORG}/keks": {"keks": [KEK], "kek": KEK, "nextPageToken": ""},
    f"/v1/organizations/{ORG}/keks:rotate": {"kek": KEK, "credentialsToMove": 41},
    f"/v1/organizations/{ORG}/keks/2:retire": {"kek": {**KEK, "state": "KEK_STATE_RETIRED"}},
    f"/v1/organizations/{ORG}/connections/c1:rotateCredential": {"rotation": ROTATION},
    f"/v1/organizations/{ORG}/connections/c1:cancelRotation": {"rotation": ROTATION},
    f"/v1/organizations/{ORG}/connections/c1/rotation": {"rotation": ROTATION},
    f"/v1/organizations/{ORG}/keys": {"keys": [KEY], "key": KEY, "secret": GENERATED, "nextPageToken": ""},
    f"/v1/organizations/{ORG}/keys/k1:rotate": {"key": {**KEY, "keyId": "k2"}, "replaced": ENDING, "secret": GENERATED},
    f"/v1/organizations/{ORG}/keys/k1:revoke": {"key": {**ENDING, "state": "KEY_STATE_REVOKED"}},
    f"/v1/organizations/{ORG}/secretsPosture": {
        "credentials": [
            {
                "connectionId": "c1",
                "ageDays": 91,
                "createdAt": "2026-01-01T00:00:00Z",
                "kek": "file:r/a/1",
                "standing": "CREDENTIAL_STANDING_IN_USE",
                "lastUsedAt": "2026-03-30T00:00:00Z",
                "refusedFrom": "2026-06-30T00:00:00Z",
            }
        ],
        "keks": [{"kek": "file:r/a/1", "credentials": 7, "backups": 2, "lastUsedAt": "2026-03-31T00:00:00Z"}],
        "decryptFailures": [{"reason": "KMS_UNAVAILABLE", "count": "3", "lastAt": "2026-03-29T00:00:00Z"}],
    },
    "/v1/me/organizations": {"other": "server"},
}


class _Handler(BaseHTTPRequestHandler):
    seen: list[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.seen.append(path)
        found = ANSWERS.get(self.path, ANSWERS.get(path, {"detail": "Not Found"}))
        text = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(200 if path in ANSWERS else 404)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def _serving() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    handler = type("_Seeing", (_Handler,), {"seen": seen})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[str]]]:
    with _serving() as found:
        yield found


def environment(url: str, **more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "RECOUP_GATEWAY": url, "RECOUP_TOKEN": "token", "RECOUP_ORG": ORG, "NO_PROXY": "*", **more}


COMMAND = [sys.executable, "-m", "recoup_client.cli"]
NOWHERE = "https://127.0.0.1:1"


def run(*arguments: str, url: str = NOWHERE, **more: str) -> Result:
    names = ("RECOUP_CA", "RECOUP_TOKEN_FILE", "RECOUP_DEBUG", "SSL_CERT_FILE")
    given = {**dict.fromkeys(names), **environment(url, **more)}
    return CliRunner().invoke(cli.main, arguments, env=given)


def test_a_pipe_gets_whole_rows(gateway: tuple[str, list[str]]) -> None:
    for arguments, wanted in ((("action", "show", ACTION), (ACTION, HASH)), (("action", "list"), (ACTION,))):
        done = run(*arguments, url=gateway[0], COLUMNS="40")
        assert done.exit_code == DONE, done.stderr
        assert all(text in done.stdout for text in wanted)
        assert "…" not in done.stdout


@pytest.mark.parametrize("command", ["list", f"register google {KEK['keyId']} --region europe-west3 --key-version 7"])
def test_a_kek_is_named_as_its_key_service_names_it(gateway: tuple[str, list[str]], command: str) -> None:
    done = run("kek", *command.split(), url=gateway[0])
    assert done.exit_code == DONE, done.output
    shown = unstyle(done.output)
    assert all(text in shown for text in ("active", "google", "europe-west3", "7"))
    assert run("kek", "register", "azur", "x", "--region", "y", url=gateway[0]).exit_code == WRONG_USE


def test_a_kek_is_rotated_and_retired(gateway: tuple[str, list[str]]) -> None:
    for command, wanted in (("rotate", ("active", "41")), ("retire 2", ("retired",))):
        done = run("kek", *command.split(), url=gateway[0])
        assert done.exit_code == DONE, done.output
        assert all(text in unstyle(done.output) for text in wanted)
    assert gateway[1] == [f"/v1/organizations/{ORG}/keks:rotate", f"/v1/organizations/{ORG}/keks/2:retire"]
    # Without a region, or with a version that is no number: said before anything is asked.
    for wrong in ("register aws arn:aws:kms:eu-central-1:1:key/1", "retire two", "retire 0"):
        assert run("kek", *wrong.split(), url=gateway[0]).exit_code == WRONG_USE
    assert len(gateway[1]) == 2


def test_a_credential_is_rotated_and_its_secret_is_no_argument(gateway: tuple[str, list[str]]) -> None:
    given, key = ("credential", "rotate", "c1", "--key-file", "-"), {"AccessKeyId": "AKIANEW", "SecretAccessKey": "s3c"}
    done = CliRunner().invoke(cli.main, given, env=environment(gateway[0]), input=json.dumps({"AccessKey": key}))
    assert done.exit_code == DONE, done.output
    assert "s3c" not in done.output
    for command in ("rotate c1 --no-key", "cancel c1", "status c1"):
        done = run("credential", *command.split(), url=gateway[0])
        assert done.exit_code == DONE, done.output
        texts = ("failed", "AKIAOLD", "none", "RecoupScan refuses us", "deactivate the access key")
        assert all(text in unstyle(done.output) for text in texts)
    for command in ("rotate c1", "rotate c1 --no-key --key-file -", "rotate c1 --key-file nowhere"):
        assert run("credential", *command.split(), url=gateway[0]).exit_code == WRONG_USE


def test_a_generated_key_is_on_stdout_alone_and_a_given_one_comes_from_stdin(
    gateway: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("create webhook slack", "rotate k1"):
        done = run("key", *command.split(), url=gateway[0])
        assert (done.exit_code, done.stdout) == (DONE, f"{GENERATED}\n"), done.output
        assert "isn't shown again" in done.stderr
    assert "2026-03-02T08:30:00" in done.stderr
    assert json.loads(run("--json", "key", "create", "webhook", "slack", url=gateway[0]).stdout)["secret"] == GENERATED
    for command, wanted in (("list", ("k1", "webhook", "slack", "active")), ("revoke k1", ("revoked", "2026-03-02"))):
        done = run("key", *command.split(), url=gateway[0])
        assert done.exit_code == DONE, done.output
        assert all(text in unstyle(done.output) for text in wanted)
    seen = len(gateway[1])
    for wrong in ("create ai claude", "create ssh x", "rotate k1 --overlap-hours 169"):
        assert run("key", *wrong.split(), url=gateway[0]).exit_code == WRONG_USE
    assert len(gateway[1]) == seen  # Nothing on stdin is no key.
    sent: list[Any] = []

    def call(*given: Any) -> dict[str, Any]:
        sent.append(given[3])
        return {"key": KEY}

    monkeypatch.setattr(Rest, "call", call)
    typed, told = "sk-1234567\n", environment(gateway[0])
    done = CliRunner().invoke(cli.main, ["key", "create", "ai", "x"], env=told, input=typed)
    assert done.exit_code == DONE, done.output
    assert sent == [{"purpose": "KEY_PURPOSE_AI", "name": "x", "secret": "sk-1234567"}]
    for wrong, why in ((b"\xff" * 20, "isn't text"), (b"k" * 70_000, "is larger than")):  # And isn't sent in part.
        done = CliRunner().invoke(cli.main, ["key", "create", "ai", "x"], env=told, input=wrong)
        assert (done.exit_code, why in done.stderr, len(sent)) == (WRONG_USE, True, 1), done.output
    assert "sk-1234567" not in done.output


def test_secrets_stand_as_the_scanner_says(gateway: tuple[str, list[str]]) -> None:
    done = run("secrets", "posture", url=gateway[0])
    assert done.exit_code == DONE, done.output
    texts = ("c1", "in use", "91", "2026-01-01", "2026-03-30", "2026-06-30", "file:r/a/1")
    assert all(text in unstyle(done.output) for text in texts)
    assert all(text in done.output for text in ("7 credentials, 2 backups", "2026-03-31", "KMS_UNAVAILABLE: 3 times"))
    found = json.loads(run("--json", "secrets", "posture", url=gateway[0]).output)
    assert found["credentials"][0]["ageDays"] == 91


def test_what_a_cloud_must_allow_is_printed_as_it_is(gateway: tuple[str, list[str]]) -> None:
    wanted = ("--print-policy", "--format", "terraform", "--for", "aws.ebs.convert_gp3", "--bill", "bills/focus/")
    done = run("connect", "aws", *wanted, url=gateway[0])
    assert (done.exit_code, done.output) == (DONE, "the roles, as a text\n")
    assert json.loads(run("--json", "connect", "aws", *wanted, url=gateway[0]).output)["externalId"] == "recoup-1"
    assert run("connect", "aws", "--print-policy", "--format", "yaml", url=gateway[0]).exit_code == WRONG_USE


def test_how_a_connection_stands_is_shown_permission_by_permission(gateway: tuple[str, list[str]]) -> None:
    done = run("connection", "show", "c1", url=gateway[0], COLUMNS="200")
    shown = unstyle(done.output)
    texts = ("sts:AssumeRole", "RecoupAct no longer allows it", "ec2:DeleteVolume", "LOST", "Allow ec2:DeleteVolume")
    assert all(text in shown for text in texts), shown
    assert "forbidden" in run("connect", "static-keys", "forbidden", url=gateway[0]).output


def on_a_terminal(url: str, columns: int, *arguments: str) -> str:
    ours, theirs = pty.openpty()
    given = environment(url, COLUMNS=str(columns), TERM="xterm")
    with subprocess.Popen([*COMMAND, *arguments], env=given, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        read = bytearray()
        while True:
            try:
                some = os.read(ours, 65_536)
            except OSError:  # Linux's word for a terminal whose other end is closed
                break
            if not some:
                break
            read += some
        assert running.wait() == DONE, read
    os.close(ours)
    return unstyle(read.decode())


def test_a_terminal_cuts_no_id(gateway: tuple[str, list[str]]) -> None:
    shown = on_a_terminal(gateway[0], 80, "action", "show", ACTION)
    cells = "".join(line.split("│")[2].strip() for line in shown.splitlines() if line.count("│") == 3)
    assert ACTION in cells
    assert HASH in cells
    assert "…" not in shown
    # An id stays on one line where others can be folded instead.
    listed = on_a_terminal(gateway[0], 80, "action", "list")
    assert ACTION in listed
    assert "…" not in listed
    # Nor does it push the others out where they can't.
    cells = [line.split("│") for line in on_a_terminal(gateway[0], 40, "action", "list").splitlines() if "│" in line]
    folded = [
        "".join(column).replace(" ", "") for column in zip(*((c.strip() for c in row) for row in cells), strict=True)
    ]
    assert folded[1:5] == [ACTION, "requested", "vol-0123456789abcdef0", "12.345678USD"]


def test_a_name_is_shown_as_it_is_and_moves_nothing() -> None:
    session = Session(None, None, None, None, False)
    with CliRunner().isolation() as (out, _, _):
        session.show({}, [("[bold]arn:key:x[/]", "a\x1b[2Jb\u202ec\nd")], "one", "two")
        told = out.getvalue().decode()
    assert "[bold]arn:key:x[/]" in told
    assert "a?[2Jb?c?d" in told


@pytest.mark.parametrize("kind", ["missing", "a folder", "binary"])
@pytest.mark.parametrize("option", ["--token-file", "--ca"])
def test_a_file_that_cannot_be_used_is_wrong_use(option: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    if kind == "binary":
        file.write_bytes(bytes(range(256)))
    done = run(option, str(tmp_path if kind == "a folder" else file), "orgs")
    assert (done.exit_code, done.stdout) == (WRONG_USE, "")
    assert str(tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("token", ["é", "one\ntwo", "one\n", "one two", "\x7f"])
def test_a_token_that_no_header_can_hold_is_wrong_use(token: str) -> None:
    done = run("orgs", RECOUP_TOKEN=token)
    assert (done.exit_code, len(done.stderr.splitlines())) == (WRONG_USE, 1)
    assert "the session token" in done.stderr
    assert "one" not in done.stderr.split("token", 1)[0]


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:abc",
        "https://[::1",
        "127.0.0.1:8443",
        "ftp://here",
        "https://",
        "https://a..b",
        "https://é..b",
    ],
)
def test_what_is_no_address_is_wrong_use(url: str) -> None:
    done = run("orgs", url=url)
    assert (done.exit_code, len(done.stderr.splitlines())) == (WRONG_USE, 1)
    assert "isn't an address" in done.stderr


@pytest.mark.parametrize("host", ["recoup.example.com", "10.0.0.1", "127.0.0.1.example.com"])
def test_a_session_is_not_sent_in_the_clear(host: str) -> None:
    done = run("orgs", url=f"http://{host}")
    assert (done.exit_code, "in the clear" in done.stderr, "token" in done.stderr) == (WRONG_USE, True, False)


def test_an_organization_s_id_may_be_in_capitals(gateway: tuple[str, list[str]]) -> None:
    assert run("action", "list", url=gateway[0], RECOUP_ORG=ORG.upper()).exit_code == DONE
    assert run("action", "list", url=gateway[0], RECOUP_ORG=ACTION.upper()).exit_code == UNREACHABLE
    assert gateway[1] == [f"/v1/organizations/{organization}/actions" for organization in (ORG, ACTION)]


def test_events_are_listed_to_the_last_page(gateway: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/v1/organizations/{ORG}/events"
    made = {"occurredAt": "2026-03-01T00:00:00Z", "action": "a.b.c", "target": "things/1", "result": "OK"}
    monkeypatch.setitem(ANSWERS, path, {"events": [{**made, "index": "2"}], "nextPageToken": "p"})
    last = {"events": [{**made, "index": "1"}], "nextPageToken": ""}
    monkeypatch.setitem(ANSWERS, f"{path}?pageSize=500&pageToken=p", last)
    done = run("--json", "events", url=gateway[0])
    assert [event["index"] for event in json.loads(done.stdout)["events"]] == ["2", "1"]


EVENT = {
    "eventId": ACTION, "occurredAt": "2026-03-01T08:30:00Z", "action": "actions.action.approve", "target": "actions/1",
    "result": "OK", "role": "APPROVER", "payload": "eyJhY3RvciI6InVzZXI6NyJ9",
}  # fmt: skip


def test_audit_events_pass_every_filter_on(gateway: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, str] = {}

    def call(_: Session, method: str, path: str, body: Any = None, **parameters: Any) -> dict[str, Any]:
        asked.update({name: str(value) for name, value in parameters.items() if value != ""})
        return {"events": [EVENT, {**EVENT, "payload": ""}], "nextPageToken": "more"}

    monkeypatch.setattr(Session, "call", call)
    done = run("audit", "events", "--action", "actions.", "--target", "actions/1", "--actor", "user:7",
               "--role", "ADMIN", "--result", "OK", "--request", "r", "--trace", "ab", "--from", "2026-03-01", "--to",
               "2026-03-02T01:00:00+02:00", "--limit", "2")  # fmt: skip
    assert done.exit_code == DONE
    assert asked == {
        "pageSize": "2", "action": "actions.", "target": "actions/1", "actor": "user:7", "role": "ADMIN",
        "result": "OK", "requestId": "r", "traceId": "ab", "occurredAfter": "2026-03-01T00:00:00.000000Z",
        "occurredBefore": "2026-03-01T23:00:00.000000Z",
    }  # fmt: skip
    for said in ("2026-03-01 08:30:00", "user:7", "(erased)", "only the newest 2 are shown", "--all"):
        assert said in done.output


def test_audit_events_go_on_to_the_last_page(gateway: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/v1/organizations/{ORG}/events"
    monkeypatch.setitem(ANSWERS, path, {"events": [EVENT], "nextPageToken": ""})
    monkeypatch.setitem(ANSWERS, f"{path}?pageSize=500", {"events": [EVENT, EVENT], "nextPageToken": "p"})
    done = run("audit", "events", "--all", "--json", url=gateway[0])
    assert len(json.loads(done.stdout)["events"]) == 3
    monkeypatch.setitem(ANSWERS, f"{path}?pageSize=100", {"events": [], "nextPageToken": ""})
    assert "no event that you may see matches" in run("audit", "events", url=gateway[0]).output
    assert json.loads(run("audit", "events", "--json", url=gateway[0]).stdout) == {"events": []}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "yesterday"), "is no moment such as 2026-03-01"),
        (("--result", "MAYBE"), "'OK', 'DENIED', 'FAILED'"),
        (("--limit", "0"), "0 is not in the range"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_wrong_use(arguments: tuple[str, ...], said: str) -> None:
    done = run("audit", "events", *arguments)
    assert done.exit_code == WRONG_USE
    assert said in done.output


def _bundle(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        for name in names:
            packed.writestr(zipfile.ZipInfo(name), f"content of {name}")  # Without the time: it names tests.
    return made.getvalue()


def _exporting(monkeypatch: pytest.MonkeyPatch, content: bytes, **changes: Any) -> list[tuple[str, Any]]:
    """A gateway that makes this bundle, in two looks and pieces of 100 bytes."""
    made = {
        "exportId": ACTION, "state": "EVIDENCE_STATE_QUEUED", "phase": "", "done": "0", "total": "0", "problem": "",
        "sizeBytes": str(len(content)), "sha256": hashlib.sha256(content).hexdigest(), "scope": {},
        "createdAt": "2026-04-01T00:00:00Z", "beginsAt": "2026-01-01T00:00:00Z", "endsAt": "2026-04-01T00:00:00Z",
        "expiresAt": "2026-05-01T00:00:00Z", **changes,
    }  # fmt: skip
    states = iter([{"state": "EVIDENCE_STATE_RUNNING", "phase": "events", "done": "7", "total": "9"},
                   {"state": "EVIDENCE_STATE_READY"}])  # fmt: skip
    asked: list[tuple[str, Any]] = []

    def call(_: Session, method: str, path: str, body: Any = None, **parameters: Any) -> dict[str, Any]:
        asked.append((path, body))
        return {"export": made if method == "POST" else {**made, **next(states), **changes}}

    monkeypatch.setattr(Session, "call", call)
    monkeypatch.setattr(Session, "piece", lambda _, path, offset: content[offset : offset + 100])
    monkeypatch.setattr(evidence, "POLL_SECONDS", 0.0)
    return asked


PERIOD = ("evidence", "export", "--from", "2026-01-01", "--to", "2026-04-01")


def test_an_export_is_waited_for_fetched_compared_and_unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = _bundle("manifest.json", "log/0/checkpoint")
    asked = _exporting(monkeypatch, content)
    done = run(*PERIOD, "--scope", f"actions/{ACTION}", "--scope", "scans/", "-o", str(tmp_path / "made"),
               "--request-id", "r")  # fmt: skip
    assert done.exit_code == DONE, done.output
    assert asked[0] == ("/evidenceExports", {
        "requestId": "r", "scope": {"actionIds": [ACTION], "targetPrefixes": ["scans/"]},
        "beginsAt": "2026-01-01T00:00:00.000000Z", "endsAt": "2026-04-01T00:00:00.000000Z",
    })  # fmt: skip
    assert "running events 7 of 9" in done.output
    assert (tmp_path / "made" / "log" / "0" / "checkpoint").read_text() == "content of log/0/checkpoint"
    _exporting(monkeypatch, content)
    assert run(*PERIOD, "-o", str(tmp_path / "made.zip")).exit_code == DONE
    assert (tmp_path / "made.zip").read_bytes() == content
    assert sorted(each.name for each in tmp_path.iterdir()) == ["made", "made.zip"]
    again = run(*PERIOD, "-o", str(tmp_path / "made.zip"))
    assert (again.exit_code, "is there already" in again.output) == (WRONG_USE, True)


@pytest.mark.parametrize(
    ("content", "changes", "said"),
    [
        (_bundle("a"), {"sha256": "0" * 64}, "isn't the bundle that was made"),
        (_bundle("a"), {"sizeBytes": "5000"}, "the bundle ends after"),
        (_bundle("a"), {"sizeBytes": "0"}, "which no bundle has"),
        (_bundle("../outside"), {}, "a file that can't be"),
        (_bundle("/absolute"), {}, "a file that can't be"),
        (_bundle("a"), {"state": "EVIDENCE_STATE_FAILED", "problem": "too large"}, "FAILED: too large"),
    ],
)
def test_what_is_no_bundle_is_not_left_behind(
    content: bytes, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _exporting(monkeypatch, content, **changes)
    done = run(*PERIOD, "-o", str(tmp_path / "made"))
    assert (done.exit_code, said in done.output) == (REFUSED, True), done.output
    assert not list(tmp_path.iterdir())


def test_a_certificate_file_of_the_environment_that_is_missing_is_wrong_use() -> None:
    assert run("orgs", SSL_CERT_FILE=os.devnull + "/none").exit_code == WRONG_USE


def test_a_gateway_that_is_not_there_is_said() -> None:
    done = run("orgs")
    assert (done.exit_code, "Is the address right" in done.stderr) == (UNREACHABLE, True)


@pytest.mark.parametrize("answer", [{"other": "server"}, ["memberships"], "text", b"<html>", b"[" * 100_000, b"\xff"])
def test_another_server_at_the_address_is_no_gateway(
    answer: object, gateway: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANSWERS, "/v1/me/organizations", answer)
    for more in ({}, {"RECOUP_ORG": ""}):
        done = run("orgs" if not more else "findings", url=gateway[0], **more)
        assert (done.exit_code, done.stdout) == (UNREACHABLE, "")
        assert "isn't a Recoup gateway" in done.stderr
    # A refusal without a reason isn't the gateway's either.
    done = run("action", "show", "other", url=gateway[0])
    assert (done.exit_code, "isn't a Recoup gateway" in done.stderr) == (UNREACHABLE, True)


def test_who_names_no_organization_is_in_their_default_or_only_one(
    gateway: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ORG.replace("1", "2")
    mine = [{"organization": {"organizationId": each, "slug": slug}} for each, slug in ((ORG, "a"), (other, "b"))]
    path = "/v1/me/organizations"
    monkeypatch.setitem(ANSWERS, path, {"memberships": mine, "defaultOrganization": ""})
    asked = run("action", "show", ACTION, url=gateway[0], RECOUP_ORG="")
    assert (asked.exit_code, "--org. Yours: a, b" in asked.stderr) == (WRONG_USE, True)
    monkeypatch.setitem(ANSWERS, path, {"memberships": mine, "defaultOrganization": ORG})
    assert run("action", "show", ACTION, url=gateway[0], RECOUP_ORG="").exit_code == DONE
    assert gateway[1][-1] == f"/v1/organizations/{ORG}/actions/{ACTION}"
    assert run("--org", "b", "action", "show", ACTION, url=gateway[0], RECOUP_ORG="").exit_code != DONE
    assert gateway[1][-1] == f"/v1/organizations/{other}/actions/{ACTION}"


def test_an_id_stays_one_segment_of_the_path(gateway: tuple[str, list[str]]) -> None:
    for given in ("../receipts", "x/steps", "x?y=1", "x#y", "x:cancel", "%2e%2e"):
        run("action", "show", given, url=gateway[0])
    start = f"/v1/organizations/{ORG}/actions/"
    assert [path.removeprefix(start) for path in gateway[1]] == [
        "..%2Freceipts", "x%2Fsteps", "x%3Fy%3D1", "x%23y", "x%3Acancel", "%252e%252e",
    ]  # fmt: skip
    for given in ("..", ".", ""):
        assert run("action", "show", given, url=gateway[0]).exit_code == WRONG_USE
    assert at("/a/{}:b", "\udcff") == "/a/%FF:b"


def test_every_command_quotes_its_id(gateway: tuple[str, list[str]]) -> None:
    commands = (
        "verify", "scan show", "bill fetch", "bill disable", "action show", "action approve", "action cancel",
        "action reject --comment no", "receipt fetch --output none", "connection show", "connection check",
        "connection remove",
    )  # fmt: skip
    for command in commands:
        run(*command.split(), "../x", *(["hash"] if "approve" in command else []), url=gateway[0])
    assert len(gateway[1]) == len(commands)
    assert all("/..%2Fx" in path for path in gateway[1])


def ended(url: str, *arguments: str, stdout: Any = None, closed: str = "") -> tuple[int, str]:
    """Its exit code and stderr; `closed` is what a shell closes for it (a fork of this process would speak of gRPC)."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"] if closed else []
    done = subprocess.run(
        [*shell, *COMMAND, *arguments],
        env=environment(url),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "arguments", [("action", "show", ACTION), ("--json", "action", "show", "many"), ("action", "--help")]
)
def test_a_full_stdout_is_one_line(arguments: tuple[str, ...], gateway: tuple[str, list[str]]) -> None:
    with Path("/dev/full").open("wb") as full:
        code, told = ended(gateway[0], *arguments, stdout=full)
    assert (code, len(told.splitlines())) == (REFUSED, 1)
    assert "can't be written: No space left on device" in told


def test_a_closed_stdout_is_one_line_whatever_would_be_printed(gateway: tuple[str, list[str]]) -> None:
    code, told = ended(gateway[0], "action", "show", ACTION, closed=">&-")
    assert (code, told) == (REFUSED, "recoup: stdout is closed; send what isn't wanted to /dev/null\n")
    assert gateway[1] == []


@pytest.mark.parametrize(
    "arguments", [("action", "show", "many"), ("--json", "action", "show", ACTION), ("action", "--help")]
)
def test_a_reader_who_went_away_is_silence(arguments: tuple[str, ...], gateway: tuple[str, list[str]]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    assert ended(gateway[0], *arguments, stdout=theirs) == (REFUSED, "")
    os.close(theirs)


def test_a_full_stderr_changes_no_exit_code() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "orgs"], env=environment(NOWHERE), stdout=subprocess.PIPE, stderr=full)
    assert (done.returncode, done.stdout) == (UNREACHABLE, b"")


def test_what_is_not_foreseen_is_one_line_and_a_traceback_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no\nway")

    monkeypatch.setattr(Rest, "call", fail)
    done = run("orgs")
    assert (done.exit_code, len(done.stderr.splitlines())) == (REFUSED, 1)
    assert "ZeroDivisionError: no?way" in done.stderr
    assert "RECOUP_DEBUG=1" in done.stderr
    assert isinstance(run("orgs", RECOUP_DEBUG="1").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GatewayRefused(404, {"detail": "no [such] thing", "reason": "RESOURCE_NOT_FOUND"}), REFUSED),
        (GatewayUnreachable("nobody"), UNREACHABLE),
        (WrongUse("no"), WRONG_USE),
        (Unwritten("full"), REFUSED),
    ],
)
def test_what_is_foreseen_has_its_exit_code_with_debugging_too(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Rest, "call", fail)
    done = run("orgs", RECOUP_DEBUG="1")
    assert (done.exit_code, str(error) in done.stderr) == (code, True)


def test_a_terminal_of_few_characters_gets_their_numbers(gateway: tuple[str, list[str]]) -> None:
    command = [*COMMAND, "action", "show", "named"]
    done = subprocess.run(command, env=environment(gateway[0], PYTHONIOENCODING="latin-1"), capture_output=True)
    assert (done.returncode, "zurück \\U0001f4b8" in done.stdout.decode("latin-1")) == (DONE, True)


def test_an_answer_that_leaves_out_a_field_is_no_gateways() -> None:
    with pytest.raises(GatewayUnreachable, match="no 'memberships'"):
        Answer()["memberships"]
    assert Answer().get("memberships") is None
    assert program.EXIT_UNREACHABLE == UNREACHABLE


def test_the_help_loads_no_driver() -> None:
    """Whoever asks what there is waits for nothing that a command of another wheel will need."""
    program = "import sys, recoup_client.cli as c; c.main(['--help'], standalone_mode=False)"
    program += "; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"backup", "local", "trace"} <= set(done.stdout.split())
    assert not {"sqlalchemy", "asyncpg", "grpc", "boto3", "moto"} & set(done.stderr.split())
