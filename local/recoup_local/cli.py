"""`recoup local …`: the same mesh on one machine, for as long as it is wanted.

Exit codes: 0 done, 1 something failed, 2 wrong use, 3 nothing is running (or something is already).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from recoup_local.cloud.simclock import SimClock
from recoup_local.issuer import Issuer, find_person

EXIT_FAILED, EXIT_USAGE, EXIT_NOT_RUNNING = 1, 2, 3
UP_SECONDS = 180.0
DOWN_SECONDS = 40.0
_state = click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path(".recoup"),
    show_default=True,
    help="the folder that the mesh lives in",
)
_json = click.option("--json", "as_json", is_flag=True, help="print JSON")


@click.group()
def local() -> None:
    """Run Recoup on this machine. Nothing that it signs is evidence."""


@local.command()
@_state
@_json
@click.option("--detach", is_flag=True, help="return once it is up")
def up(state: Path, as_json: bool, detach: bool) -> None:
    """Bring the mesh up; Ctrl-C takes it down again."""
    state = state.resolve()
    if _running(state):
        _stop_with(EXIT_NOT_RUNNING, f"a mesh runs in {state} already. `recoup local down` ends it.")
    if detach:
        _up_detached(state)
        _print(_facts(state), as_json)
        return
    from recoup_local.supervisor import StartError

    try:
        asyncio.run(_serve(state, as_json))
    except StartError as error:
        _stop_with(EXIT_FAILED, str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def _up_detached(state: Path) -> None:
    state.mkdir(parents=True, exist_ok=True)
    (state / "facts.json").unlink(missing_ok=True)
    log = state / "supervisor.log"
    with log.open("ab") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "recoup_local", "up", "--state", str(state)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + UP_SECONDS
    while not (state / "facts.json").exists():
        if child.poll() is not None or time.monotonic() > deadline:
            _stop_with(EXIT_FAILED, f"the mesh didn't come up:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)


async def _serve(state: Path, as_json: bool) -> None:
    from recoup_local.supervisor import LocalMesh

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    mesh = LocalMesh(state)
    (state / "supervisor.pid").write_text(str(os.getpid()))
    console = Console(stderr=True)
    starting = asyncio.create_task(mesh.start(lambda text: console.print(f"{text} …")))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        await starting
        mesh.write_facts()
        _print(_facts(state), as_json)
        await stopping
    except asyncio.CancelledError:
        console.print("stopped while starting")
    finally:
        (state / "facts.json").unlink(missing_ok=True)
        await asyncio.to_thread(mesh.stop)
        (state / "supervisor.pid").unlink(missing_ok=True)


@local.command()
@_state
@_json
def status(state: Path, as_json: bool) -> None:
    """Say whether a mesh runs, and where its parts are."""
    state = state.resolve()
    if not _running(state) or not (state / "facts.json").exists():
        _stop_with(EXIT_NOT_RUNNING, f"no mesh runs in {state}. `recoup local up` starts one.")
    _print(_facts(state), as_json)


@local.command()
@_state
@_json
@click.option("--org", required=True, help="acme or globex")
@click.option("--role", required=True, help="Admin, FinOps, Security, Approver, Finance, Auditor or Viewer")
@click.option("--aal", type=click.IntRange(1, 2), default=2, show_default=True, help="assurance level of the session")
def token(state: Path, as_json: bool, org: str, role: str, aal: int) -> None:
    """Print a session token of somebody."""
    folder = state.resolve() / "issuer"
    if not folder.exists():
        _stop_with(EXIT_NOT_RUNNING, f"there is no mesh in {state}. `recoup local up` makes one.")
    try:
        person = find_person(org, role)
    except KeyError as error:
        _stop_with(EXIT_USAGE, str(error.args[0]))
    made = Issuer(folder).token(person, aal=aal)
    click.echo(json.dumps({"token": made, "user_id": str(person.user_id)}) if as_json else made)


@local.command()
@_state
@_json
@click.option("--advance", metavar="DURATION", help="such as 7d, 12h or 30m")
@click.option("--set", "moment", metavar="TIME", help="ISO 8601 with a zone, such as 2026-01-31T09:00:00Z")
@click.option("--reset", is_flag=True, help="back to the wall clock")
def clock(state: Path, as_json: bool, advance: str | None, moment: str | None, reset: bool) -> None:
    """Show or move the clock that ages, windows and due dates go by."""
    file = SimClock(state.resolve() / "clock.json")
    try:
        if reset:
            file.set_offset(timedelta(0))
        elif moment:
            file.set_now(datetime.fromisoformat(moment))
        elif advance:
            file.set_offset(file.offset() + _duration(advance))
    except ValueError as error:
        _stop_with(EXIT_USAGE, str(error))
    now = file.now().isoformat(timespec="seconds")
    click.echo(json.dumps({"now": now, "offset_seconds": file.offset().total_seconds()}) if as_json else now)


@local.command()
@_state
@_json
def down(state: Path, as_json: bool) -> None:
    """Take the mesh down."""
    state = state.resolve()
    pid = _running(state)
    if not pid:
        _stop_with(EXIT_NOT_RUNNING, f"no mesh runs in {state}.")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while _running(state):
        if time.monotonic() > deadline:
            _stop_with(EXIT_FAILED, f"the mesh (process {pid}) didn't end; see {state / 'supervisor.log'}")
        time.sleep(0.05)
    click.echo(json.dumps({"stopped": True}) if as_json else "stopped")


@local.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("out/demo"), show_default=True)
def demo(output: Path) -> None:
    """Tell the main job from start to end, on a mesh of its own."""
    from recoup_local.demo.run import run
    from recoup_local.demo.story import StoryBroken
    from recoup_local.supervisor import StartError

    console = Console(highlight=False, width=max(110, Console().width))
    try:
        asyncio.run(run(output, console))
    except (StartError, StoryBroken) as error:
        _stop_with(EXIT_FAILED, str(error))
    except KeyboardInterrupt:
        console.print("\nstopped; nothing is left running")
        sys.exit(130)


def _running(state: Path) -> int:
    """The supervisor's process id, or 0."""
    try:
        pid = int((state / "supervisor.pid").read_text())
        os.kill(pid, 0)
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    return pid if b"recoup" in command else 0


def _facts(state: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((state / "facts.json").read_text())
    return facts


def _print(facts: dict[str, Any], as_json: bool) -> None:
    click.echo(json.dumps(facts) if as_json else "\n".join(f"{key:10} {value}" for key, value in facts.items()))


def _duration(text: str) -> timedelta:
    units = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
    if not text or text[-1] not in units or not text[:-1].lstrip("-").isdecimal():
        raise ValueError(f"{text!r} isn't a duration; write such as 7d, 12h or 30m")
    return timedelta(**{units[text[-1]]: int(text[:-1])})


def _stop_with(code: int, message: str) -> Any:
    click.echo(f"recoup local: {message}", err=True)
    sys.exit(code)
