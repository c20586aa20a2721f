"""Only the broker's identity opens: the attempt with what each other process has, locally and in each cloud."""

from __future__ import annotations

import ast
import json
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from recoup_local.installation import Installation
from recoup_local.kms import FileKms
from recoup_local.layout import PLANNED, PROCESSES
from services._mesh.envelope import open_envelope, seal
from services._mesh.errors import Problem
from services._mesh.kms.aws import AwsKms
from services._mesh.kms.interface import Kek, KeyService
from services._mesh.threads import BoundedThreads
from tests.support.key_services.azure import azure_kms
from tests.support.key_services.google import google_kms
from tests.support.key_services.keeper import DEADLINE_SECONDS
from tests.support.kms import context
from tools.kms_policies import FOLDER, OPENS, PAIRS, SEALS, documents

ROOT = Path(__file__).resolve().parents[2]
REGION = "eu-central-1"
NAMES = (*(spec.name for spec in PROCESSES), *PLANNED)


def role(service: str, process: str) -> Any:
    """A process's rights as they are deployed; none for one without a file."""
    file = FOLDER / service / f"{process}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def test_the_files_are_what_the_script_makes() -> None:
    made = {str(path.relative_to(FOLDER)): json.loads(path.read_text()) for path in FOLDER.rglob("*.json")}
    assert made == dict(documents())


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("installation"))


@pytest.mark.parametrize("process", NAMES)
async def test_the_file_kms_opens_for_the_broker_alone(installation: Installation, process: str) -> None:
    """With each file that a process holds, taken for a key ring."""
    kek = Kek(KeyService.FILE, f"{installation.ring.name}/acme/1")
    with ExitStack() as stack:
        threads = BoundedThreads(2, "kms")
        stack.callback(threads.close)
        envelope = await seal(b"secret", context(), kek, FileKms(installation.ring.sealing, threads, 20.0))
        opened = []
        for file in filter(Path.is_file, installation.folder(process).rglob("*")):
            try:
                opened.append(await open_envelope(envelope, context(), FileKms(file, threads, 20.0)))
            except (Problem, ValueError, TypeError):
                continue
    assert opened == ([b"secret"] if process == OPENS else [])


PROCESSES_AND_RIGHTS = [pytest.param(name, name in (*SEALS, OPENS), name == OPENS, id=name) for name in NAMES]


@pytest.mark.parametrize(("process", "may_seal", "may_open"), PROCESSES_AND_RIGHTS)
async def test_azure_opens_for_the_broker_alone(process: str, may_seal: bool, may_open: bool, tmp_path: Path) -> None:
    async with azure_kms(tmp_path) as keeper:
        envelope = await seal(b"secret", context(), keeper.kek, keeper.open(DEADLINE_SECONDS))
        keeper.set_rights(role("azure", process).get("DataActions", ()))
        kms = keeper.open(DEADLINE_SECONDS)
        assert await tried(seal(b"secret", context(), keeper.kek, kms)) == outcome(may_seal)
        assert await tried(open_envelope(envelope, context(), kms)) == outcome(may_open)


@pytest.mark.parametrize(("process", "may_seal", "may_open"), PROCESSES_AND_RIGHTS)
async def test_google_opens_for_the_broker_alone(process: str, may_seal: bool, may_open: bool) -> None:
    async with google_kms() as keeper:
        kms = keeper.open(DEADLINE_SECONDS)
        envelope = await seal(b"secret", context(), keeper.kek, kms)
        keeper.set_rights(role("google", process).get("includedPermissions", ()))
        assert await tried(seal(b"secret", context(), keeper.kek, kms)) == outcome(may_seal)
        assert await tried(open_envelope(envelope, context(), kms)) == outcome(may_open)


def outcome(allowed: bool) -> str:
    return "DONE" if allowed else "DENIED"


async def tried(attempt: Any) -> str:
    """What came of it: done, or why not."""
    try:
        await attempt
    except Problem as problem:
        return problem.metadata["cause"]
    return "DONE"


async def test_aws_opens_for_the_broker_alone(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under moto's enforcement of identity policies, which knows actions, and neither key policies nor conditions."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    iam, keys = (boto3.client(name, region_name=REGION, endpoint_url=endpoint) for name in ("iam", "kms"))
    arn = keys.create_key()["KeyMetadata"]["Arn"]
    kek, threads = Kek(KeyService.AWS, arn), BoundedThreads(2, "aws")
    envelope = await seal(b"secret", context(), kek, AwsKms(threads, DEADLINE_SECONDS, [REGION], endpoint))
    identities = {name: iam_user(iam, name, role("aws", name)) for name in NAMES}
    httpx.post(f"{endpoint}/moto-api/reset-auth", content=b"0").raise_for_status()
    try:
        for process, (key_id, secret) in identities.items():
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id)
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
            kms = AwsKms(threads, DEADLINE_SECONDS, [REGION], endpoint)
            assert await tried(seal(b"secret", context(), kek, kms)) == outcome(process in (*SEALS, OPENS)), process
            assert await tried(open_envelope(envelope, context(), kms)) == outcome(process == OPENS), process
    finally:
        httpx.post(f"{endpoint}/moto-api/reset-auth", content=b"inf").raise_for_status()
        threads.close()


def iam_user(iam: Any, process: str, policy: Any) -> tuple[str, str]:
    iam.create_user(UserName=process)
    if policy:
        # moto asks for "*", whatever the key.
        statements = [{**statement, "Resource": "*"} for statement in policy["Statement"]]
        document = json.dumps({**policy, "Statement": statements})
        iam.put_user_policy(UserName=process, PolicyName="kek", PolicyDocument=document)
    made = iam.create_access_key(UserName=process)["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


ROLE = {name: "${" + name.upper() + "_ROLE_ARN}" for name in (*SEALS, OPENS, "key_keeper")}
OURS = {**dict.fromkeys(PAIRS, "x"), "recoup:organization": "${ORGANIZATION_ID}"}


@pytest.mark.parametrize(
    ("principal", "action", "pairs", "allowed"),
    [
        (ROLE["broker"], "kms:Decrypt", OURS, True),
        (ROLE["broker"], "kms:Encrypt", OURS, True),
        (ROLE["scanner"], "kms:Encrypt", OURS, True),
        (ROLE["scanner"], "kms:Decrypt", OURS, False),
        (ROLE["key_keeper"], "kms:Decrypt", OURS, False),
        (ROLE["key_keeper"], "kms:Encrypt", OURS, False),
        (ROLE["key_keeper"], "kms:CreateGrant", OURS, False),
        (ROLE["key_keeper"], "kms:DisableKey", OURS, True),
        ("somebody", "kms:Decrypt", OURS, False),
        ("somebody", "kms:Encrypt", OURS, False),
        (ROLE["broker"], "kms:Decrypt", {**OURS, "recoup:organization": "another"}, False),
        (ROLE["broker"], "kms:Decrypt", {}, False),
        (ROLE["broker"], "kms:Decrypt", {**OURS, "more": "x"}, False),
        *((ROLE["scanner"], "kms:Encrypt", {k: v for k, v in OURS.items() if k != pair}, False) for pair in PAIRS),
    ],
)
def test_the_key_policy(principal: str, action: str, pairs: dict[str, str], allowed: bool) -> None:
    policy = json.loads((FOLDER / "aws" / "key_policy.json").read_text())
    effects = {s["Effect"] for s in policy["Statement"] if concerns(s, principal, action, pairs)}
    assert (effects == {"Allow"}) == allowed


def concerns(statement: dict[str, Any], principal: str, action: str, pairs: dict[str, str]) -> bool:
    """Whether a statement is about a call: as much of IAM's rules as these policies use."""
    whom, actions = statement["Principal"], statement["Action"]
    if whom != "*" and whom["AWS"] != principal:
        return False
    if not any(fnmatch(action, each) for each in actions):
        return False
    known = {f"kms:EncryptionContext:{key}": value for key, value in pairs.items()} | {"aws:PrincipalArn": principal}
    for operator, tests in statement.get("Condition", {}).items():
        for key, wanted in tests.items():
            if not holds(operator, key, wanted, known, pairs):
                return False
    return True


def holds(operator: str, key: str, wanted: Any, known: dict[str, str], pairs: dict[str, str]) -> bool:
    if operator == "StringEquals":
        return known.get(key) == wanted
    if operator == "ArnNotEquals":
        return known.get(key) != wanted
    if operator == "Null":
        return (key not in known) == (wanted == "true")
    assert (operator, key) == ("ForAllValues:StringEquals", "kms:EncryptionContextKeys")
    return set(pairs) <= set(wanted)


OPENING = {"open_envelope", "open_with", "rewrap", "derive_keys", "unwrap"}


def test_no_process_but_the_broker_has_code_that_opens() -> None:
    """`unwrap` of audit's own keys, which its payloads are sealed under, is another right (services/audit/kek.py).

    `recoup backup` is no process. It opens the data keys of backups, which are under a KEK of their own.
    """
    found = set()
    for path in (ROOT / "services").rglob("*.py"):
        room = path.relative_to(ROOT / "services").parts
        if (
            room[0] in (OPENS, "audit")
            or room == ("backup", "usecases", "keeping.py")
            or room[:2] in (("_mesh", "kms"), ("_mesh", "envelope.py"))
        ):
            continue
        names = set[str]()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.name for alias in node.names}
        found |= {f"{'/'.join(room)}: {name}" for name in names & OPENING}
    assert not found
