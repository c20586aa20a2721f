"""`recoup connect` and `recoup connection` without a mesh: what is asked, shown and left behind, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click import unstyle
from click.testing import CliRunner, Result

from recoup_client import cli, connections
from recoup_client.rest import GatewayRefused, GatewayUnreachable
from recoup_client.session import Session

DONE, REFUSED, WRONG_USE = 0, 1, 2
ROLE = "arn:aws:iam::111111111111:role/RecoupScan"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYcanary0002"
KEY = json.dumps({"AccessKey": {"AccessKeyId": "AKIA" + "B" * 16, "SecretAccessKey": SECRET}})
AWS = ("connect", "aws", "--name", "acme", "--role", ROLE, "--region", "eu-west-1")
ASKED = {
    "connectionId": "c1", "displayName": "acme", "provider": "aws", "etag": "e1", "problem": "", "roleChecks": [],
    "permissionChecks": [], "discovered": [],
    "federation": {"issuer": "https://issuer", "subject": "s1", "audience": "api://"},
}  # fmt: skip


class Gateway:
    """Stands in for the gateway: one connection, whose check ends as it is told to."""

    def __init__(self, ends: str = "ACTIVE", problem: str = "") -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.state, self.ends, self.problem, self.looks = "PENDING", ends, problem, 0
        self.fails: dict[str, Exception] = {}

    def __call__(self, _: Session, method: str, path: str, body: Any = None, **__: Any) -> dict[str, Any]:
        self.calls.append((method, path, body or {}))
        if path in self.fails:
            raise self.fails[path]
        if path == "/connectionPlans":
            return {"externalId": "recoup-1", "document": "the roles\n"}
        if path == "/connections":
            self.state, self.looks = "PENDING", 0
        elif path.endswith((":verify", ":check")):
            self.state = "VERIFYING"
        elif path.endswith(":disable"):
            self.state = "DISABLED"
        elif method == "GET" and self.state == "VERIFYING":
            self.looks += 1
            self.state = self.ends if self.looks > 2 else self.state
        return {"connection": self.now()}

    def now(self) -> dict[str, Any]:
        over = self.state in (self.ends, "DISABLED")
        check = {"roleArn": ROLE, "permission": "ec2:DescribeVolumes", "outcome": "REFUSED", "fix": "Allow it"}
        return {
            **ASKED, "state": f"CONNECTION_STATE_{self.state}", "problem": self.problem if over else "",
            "permissionChecks": [check] if over else [], "checkedAt": "2026-03-01T08:30:00Z" if over else None,
        }  # fmt: skip

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [body for _, asked, body in self.calls if asked == path]

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.calls]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Gateway]:
    def serving(*arguments: str) -> Gateway:
        made = Gateway(*arguments)
        monkeypatch.setattr(Session, "call", lambda *given, **more: made(*given, **more))
        monkeypatch.setattr(connections, "_PAUSE_SECONDS", 0.0)
        monkeypatch.setattr(connections, "_LONGEST_SECONDS", 5.0)
        return made

    return serving


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli.main, arguments, input=stdin, env={"COLUMNS": "200"})


def test_the_external_id_and_the_roles_come_first_and_what_was_checked_last(serve: Callable[..., Gateway]) -> None:
    gateway = serve()
    done = run(*AWS, "--act-role", ROLE.replace("Scan", "Act"), "--for", "aws.ebs.convert_gp3")
    assert done.exit_code == DONE, done.output
    assert gateway.paths[:3] == ["/connectionPlans", "/connections", "/connections/c1:verify"]
    assert gateway.asked("/connectionPlans")[0]["actionTypes"] == ["aws.ebs.convert_gp3"]
    assert gateway.asked("/connections") == [
        {
            "displayName": "acme", "regions": ["eu-west-1"], "awsAccessKeyId": "", "awsSecretAccessKey": "",
            "awsAccounts": [
                {"accountId": "1" * 12, "scanRoleArn": ROLE, "actRoleArn": ROLE.replace("Scan", "Act")}
            ],
        }
    ]  # fmt: skip
    assert done.stderr.startswith("recoup: the roles must demand the external id recoup-1\nthe roles\n")
    assert all(text in unstyle(done.stdout) for text in ("ACTIVE", "ec2:DescribeVolumes", "Allow it"))
    assert json.loads(run("--json", *AWS).stdout)["connection"]["connectionId"] == "c1"


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_key_comes_by_stdin_or_a_file_and_never_shows(
    serve: Callable[..., Gateway], tmp_path: Path, form: str
) -> None:
    gateway, file = serve(), tmp_path / "key"
    text = KEY if form == "json" else f"\ufeffAccess key ID,Secret access key\n{'AKIA' + 'B' * 16},{SECRET}\n"
    file.write_text(text)
    whose = ("--principal", "arn:aws:iam::111111111111:user/recoup-base")
    for done in (run(*AWS, *whose, "--key-file", "-", stdin=text), run(*AWS, *whose, "--key-file", str(file))):
        assert done.exit_code == DONE, done.output
        assert SECRET not in done.output
    assert [body["awsSecretAccessKey"] for body in gateway.asked("/connections")] == [SECRET] * 2


def test_azure_and_google_cloud_are_connected_alike(serve: Callable[..., Gateway], tmp_path: Path) -> None:
    gateway, file = serve(), tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    ids = ("--tenant", "t", "--client", "c", "--subscription", "s1", "--subscription", "s2")
    done = run("connect", "azure", "--name", "acme", *ids, "--secret-file", str(file))
    assert done.exit_code == DONE, done.output
    assert gateway.asked("/connectionPlans") == [
        {"provider": "CLOUD_PROVIDER_AZURE", "format": "POLICY_FORMAT_JSON", "scopeIds": ["s1", "s2"]}
    ]
    assert gateway.asked("/connections") == [
        {
            "displayName": "acme", "azure": {"tenantId": "t", "clientId": "c", "subscriptionIds": ["s1", "s2"]},
            "azureClientSecret": SECRET, "azureCertificate": "",
        }
    ]  # fmt: skip
    google = ("connect", "gcp", "--name", "acme", "--project", "p", "--key-file", "-")
    again = run(*google, stdin=KEY)
    assert (again.exit_code, gateway.asked("/connections")[1]["gcpServiceAccountKey"]) == (DONE, KEY)
    assert SECRET not in done.output + again.output
    for cloud, style in (("azure", "bicep"), ("gcp", "yaml")):
        made = run("connect", cloud, "--print-policy", "--format", style)
        assert (made.stdout, gateway.asked("/connectionPlans")[-1]["format"]) == (
            "the roles\n", f"POLICY_FORMAT_{style.upper()}",
        )  # fmt: skip
    both = run("connect", "azure", "--name", "acme", *ids, "--secret-file", "-", "--certificate-file", "-")
    assert (both.exit_code, "--certificate-file or --federated" in both.stderr) == (WRONG_USE, True)
    assert "--key-file" in run("connect", "gcp", "--name", "acme").stderr


def test_whom_a_cloud_is_to_trust_is_shown_and_checked_later(serve: Callable[..., Gateway]) -> None:
    gateway = serve()
    ids = ("--tenant", "t", "--client", "c")
    done = run("connect", "azure", "--name", "acme", *ids, "--federated")
    assert done.exit_code == DONE, done.output
    assert all(text in done.output for text in ("https://issuer", "s1", "api://", "recoup connection check c1"))
    provider = ("--workload-identity-provider", "projects/1", "--service-account", "e")
    assert run("connect", "gcp", "--name", "acme", *provider).exit_code == DONE
    assert gateway.asked("/connections")[1]["gcp"] == {
        "serviceAccount": "e", "projectIds": [], "workloadIdentityProvider": "projects/1",
    }  # fmt: skip
    assert gateway.paths[-1] == "/connections"
    assert run("connect", "gcp", "--name", "acme", *provider, "--key-file", "-").exit_code == WRONG_USE
    assert run("connect", "azure", "--name", "acme", *ids, "--federated", "--secret-file", "-").exit_code == WRONG_USE


@pytest.mark.parametrize(
    "text", ["", "{", f'{{"AccessKeyId": "{SECRET}"}}', f"{SECRET}\n", "[" * 9000, "{" * 9000, '{"AccessKey": 1}',
             f'{{"AccessKeyId": 1, "SecretAccessKey": "{SECRET}"}}', "a,b\n1,2\n"]
)  # fmt: skip
def test_what_is_no_key_is_wrong_use_and_isnt_shown(serve: Callable[..., Gateway], text: str) -> None:
    gateway = serve()
    done = run(*AWS, "--principal", "arn", "--key-file", "-", stdin=text)
    assert (done.exit_code, gateway.calls) == (WRONG_USE, [])
    assert "--key-file must be an AWS access key in one of two forms" in done.stderr
    assert SECRET not in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("connect", "aws"), "give --name, --role, --region"),
        ((*AWS, "--key-file", "-"), "--principal"),
        ((*AWS[:5], "RecoupScan", *AWS[6:]), "--role RecoupScan must be the ARN of an IAM role, such as arn:aws:"),
        ((*AWS, "--act-role", ROLE.replace("1", "2")), "222222222222 has an --act-role and no --role"),
        ((*AWS, "--key-file", "nowhere", "--principal", "arn"), "nowhere can't be read"),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_never_sent(
    serve: Callable[..., Gateway], arguments: tuple[str, ...], said: str
) -> None:
    gateway = serve()
    done = run(*arguments)
    assert (done.exit_code, "/connections" in gateway.paths) == (WRONG_USE, False)
    assert said in done.stderr


def test_what_isnt_accepted_is_removed_and_says_why(serve: Callable[..., Gateway]) -> None:
    gateway = serve("FAILED", "RecoupScan refuses us")
    done = run(*AWS)
    assert (done.exit_code, gateway.state) == (REFUSED, "DISABLED")
    assert gateway.asked("/connections/c1:disable") == [{"etag": "e1"}]
    assert "Error: RecoupScan refuses us" in done.stderr
    assert "it was removed with its credential" in done.stderr
    assert all(text in unstyle(done.stdout) for text in ("FAILED", "Allow it"))
    gateway = serve("FAILED", "RecoupScan refuses us")
    done = run(*AWS, "--keep")
    assert (done.exit_code, gateway.state) == (REFUSED, "FAILED")
    assert "it stays for 7 days: recoup connection check c1" in done.stderr


@pytest.mark.parametrize("what", [KeyboardInterrupt(), GatewayRefused(409, {}), GatewayUnreachable("no answer")])
def test_who_is_interrupted_leaves_nothing_half_made(serve: Callable[..., Gateway], what: Exception) -> None:
    gateway = serve()
    gateway.fails["/connections/c1:verify"] = what
    assert run(*AWS).exit_code != DONE
    assert gateway.state == "DISABLED"
    gateway = serve()
    gateway.fails = {"/connections/c1:verify": what, "/connections/c1:disable": GatewayUnreachable("no answer")}
    assert "it stays (no answer): recoup connection remove c1" in run(*AWS).stderr


def test_a_connection_is_checked_and_removed_by_command(serve: Callable[..., Gateway]) -> None:
    gateway = serve()
    assert run("connection", "check", "c1", "--no-wait").exit_code == DONE
    assert gateway.looks == 0
    assert "ec2:DescribeVolumes" in run("connection", "check", "c1").stdout
    gateway.state, gateway.looks, gateway.problem = "ACTIVE", 0, "RecoupScan lacks it"
    done = run("connection", "check", "c1", "--no-wait")
    assert gateway.paths[-1] == "/connections/c1:check"
    assert "VERIFYING" in run("connection", "show", "c1").stdout
    assert "DISABLED" in run("connection", "remove", "c1").stdout
    assert done.exit_code == DONE
