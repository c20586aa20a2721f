"""Starts and stops the emulated AWS (moto and the proxy) as child processes on free loopback ports.

The children end with their parent, however it dies. It seeds nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAYER_ACCOUNT = "111111111111"
MEMBER_ACCOUNT = "222222222222"
ACCOUNTS = (PAYER_ACCOUNT, MEMBER_ACCOUNT)
REGIONS = ("us-east-1", "eu-west-1")
DENIED_REGION = "ap-southeast-2"
READY_SECONDS = 30.0
STOP_SECONDS = 3.0


class CloudStartError(RuntimeError):
    """A child ended or stayed silent instead of becoming ready; the message says where its log is."""


@dataclass(frozen=True)
class AdminKey:
    """A key that bypasses policies in its own account; for the seeder, the bill simulator and tests."""

    account: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True)
class CloudEndpoints:
    """Where the emulated AWS is reached and with what. `url` is the endpoint_url for every AWS service."""

    url: str
    moto_url: str
    control_url: str
    control_token: str = field(repr=False)
    log_path: Path
    clock_file: Path
    admins: dict[str, AdminKey]
    accounts: tuple[str, ...] = ACCOUNTS
    regions: tuple[str, ...] = REGIONS
    denied_region: str = DENIED_REGION


@dataclass
class Cloud:
    """The running processes and their endpoints; a context manager that stops them."""

    endpoints: CloudEndpoints
    processes: tuple[subprocess.Popen[str], ...]

    def stop(self) -> None:
        """Ends both children: SIGTERM, then SIGKILL after a grace period. Safe to call twice."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> Cloud:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_cloud(
    state_dir: Path,
    clock_file: Path,
    *,
    snapshot_polls: int = 2,
    snapshot_seconds: float = 0.0,
    denied: Sequence[str] | None = None,
) -> Cloud:
    """Starts moto and the proxy and waits until both are ready (about a second).

    Writes admin.json (0600), aws-proxy.jsonl and the children's logs into `state_dir`. `denied`:
    ["account:region", …], by default the third region in both accounts. Raises CloudStartError.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    admins, token = _write_admin_file(state_dir / "admin.json")
    log_path = state_dir / "aws-proxy.jsonl"
    clock = ["--clock-file", str(clock_file)]
    moto, moto_port = _start("recoup_local.cloud.moto_server", clock, state_dir / "moto.log")
    moto_url = f"http://127.0.0.1:{moto_port}"
    options = [*clock, "--upstream", moto_url, "--log", str(log_path)]
    options += ["--admin-file", str(state_dir / "admin.json")]
    options += ["--snapshot-polls", str(snapshot_polls), "--snapshot-seconds", str(snapshot_seconds)]
    if denied is None:
        denied = [f"{account}:{DENIED_REGION}" for account in ACCOUNTS]
    for item in denied:
        options += ["--deny", item]
    try:
        proxy, port = _start("recoup_local.cloud.proxy", options, state_dir / "aws-proxy.log")
    except BaseException:
        Cloud(_NOWHERE, (moto,)).stop()
        raise
    url = f"http://127.0.0.1:{port}"
    endpoints = CloudEndpoints(
        url=url, moto_url=moto_url, control_url=f"{url}/_proxy", control_token=token,
        log_path=log_path, clock_file=clock_file, admins=admins,
    )  # fmt: skip
    return Cloud(endpoints, (moto, proxy))


_NOWHERE = CloudEndpoints("", "", "", "", Path(), Path(), {})


def _write_admin_file(path: Path) -> tuple[dict[str, AdminKey], str]:
    admins = {
        account: AdminKey(account, f"AKIA{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30))
        for account in ACCOUNTS
    }
    token = secrets.token_urlsafe(24)
    keys = [vars(admin) for admin in admins.values()]
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"keys": keys, "control_token": token}, file)
    return admins, token


def _start(module: str, options: list[str], log: Path) -> tuple[subprocess.Popen[str], int]:
    """Starts one child in a process group of its own and returns it with the port it printed."""
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--exit-with-parent", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    line = _first_line(process)
    try:
        return process, int(json.loads(line)["port"])
    except (ValueError, KeyError) as error:
        Cloud(_NOWHERE, (process,)).stop()
        raise CloudStartError(f"{module} did not become ready; its log is {log}") from error


def _first_line(process: subprocess.Popen[str]) -> str:
    """The child's ready line, or '' if it ended or the deadline passed."""
    assert process.stdout is not None
    deadline = time.monotonic() + READY_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([process.stdout], [], [], left)
        if readable:
            return process.stdout.readline()
    return ""
