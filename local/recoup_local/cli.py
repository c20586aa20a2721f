"""`recoup local …`: the same mesh on one machine, for as long as it is wanted.

Exit codes: 0 done, 1 something failed, 2 wrong use, 3 nothing is running (or something is already).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
CLAIM_ATTEMPTS, CLAIM_PAUSE_SECONDS = 20, 0.05
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
        _stop_with(EXIT_NOT_RUNNING, _runs_already(state))
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        if detach:
            _up_detached(state)
            _print(_facts(state), as_json)
        else:
            _up_attached(state, as_json)
    except OSError as error:
        _stop_with(EXIT_FAILED, f"{state} can't hold the mesh: {error.strerror}. Choose another folder.")


def _up_attached(state: Path, as_json: bool) -> None:
    from recoup_local.supervisor import StartError

    try:
        with _claimed(state):
            asyncio.run(_serve(state, as_json))
    except StartError as error:
        _stop_with(EXIT_FAILED, str(error))
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _claimed(state: Path) -> Iterator[None]:
    """Hold the folder: the lock on `supervisor.pid` ends with this process, however it ends."""
    with (state / "supervisor.pid").open("a+") as file:
        for attempts_left in reversed(range(CLAIM_ATTEMPTS)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # Whoever asks for the status holds it too, for a moment.
                if not attempts_left:
                    _stop_with(EXIT_NOT_RUNNING, _runs_already(state))
                time.sleep(CLAIM_PAUSE_SECONDS)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _up_detached(state: Path) -> None:
    (state / "facts.json").unlink(missing_ok=True)
    log = state / "supervisor.log"
    with log.open("ab") as file:
        earlier = file.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "recoup_local", "up", "--state", str(state)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + UP_SECONDS
    while not (state / "facts.json").exists():
        if time.monotonic() > deadline:
            child.terminate()
            child.wait(DOWN_SECONDS)
        if child.poll() is not None:
            said = log.read_bytes()[earlier:].decode(errors="replace")[-2000:].removeprefix("recoup local: ")
            _stop_with(child.returncode or EXIT_FAILED, f"the mesh didn't come up:\n{said.rstrip()}")
        time.sleep(0.1)


async def _serve(state: Path, as_json: bool) -> None:
    from recoup_local.supervisor import LocalMesh

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    mesh = LocalMesh(state)
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


@local.command()
@_state
@_json
def status(state: Path, as_json: bool) -> None:
    """Say whether a mesh runs, and where its parts are."""
    state = state.resolve()
    _require_running(state)
    if not (state / "facts.json").exists():
        _stop_with(EXIT_NOT_RUNNING, f"the mesh in {state} is being started, or ends just now.")
    _print(_facts(state), as_json)


@local.command()
@_state
@_json
@click.option("--org", required=True, help="acme, globex or platform")
@click.option(
    "--role",
    required=True,
    help="Admin, FinOps, Security, Approver, Finance, Auditor or Viewer (platform: Admin, Security, Auditor)",
)
@click.option("--aal", type=click.IntRange(1, 2), default=2, show_default=True, help="assurance level of the session")
def token(state: Path, as_json: bool, org: str, role: str, aal: int) -> None:
    """Print a session token of somebody."""
    state = state.resolve()
    _require_running(state)
    try:
        person = find_person(org, role)
    except KeyError as error:
        _stop_with(EXIT_USAGE, str(error.args[0]))
    made = Issuer(state / "issuer").token(person, aal=aal)
    click.echo(json.dumps({"token": made, "user_id": str(person.user_id)}) if as_json else made)


@local.command()
@_state
@_json
@click.option("--advance", metavar="DURATION", help="such as 7d, 12h or 30m")
@click.option("--set", "moment", metavar="TIME", help="ISO 8601 with a zone, such as 2026-01-31T09:00:00Z")
@click.option("--reset", is_flag=True, help="back to the wall clock")
def clock(state: Path, as_json: bool, advance: str | None, moment: str | None, reset: bool) -> None:
    """Show or move the clock that ages, windows and due dates go by."""
    state = state.resolve()
    _require_running(state)
    file = SimClock(state / "clock.json")
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
    pid = _require_running(state)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_SECONDS
    while _running(state):
        if time.monotonic() > deadline:
            _stop_with(EXIT_FAILED, f"the mesh (process {pid}) didn't end; see {state / 'supervisor.log'}")
        time.sleep(0.05)
    click.echo(json.dumps({"stopped": True}) if as_json else "stopped")


@local.command("rotate-log-key")
@_state
@_json
@click.option("--end", is_flag=True, help="end the older key, thirty days after the rotation was begun")
def rotate_log_key(state: Path, as_json: bool, end: bool) -> None:
    """Rotate the key that the log's heads are signed with: a second one signs, then the first one ends."""
    from recoup_local.rotating import rotate_log_key as rotate
    from services.audit.model.rotation import CannotRotate

    state = state.resolve()
    _require_running(state)
    try:
        keys = rotate(state, str(_facts(state)["gateway"]), end=end)
    except CannotRotate as error:
        _stop_with(EXIT_FAILED, str(error))
    click.echo(json.dumps({"keys": keys}) if as_json else "\n".join(keys))


@local.command()
@_json
@click.option("--output", type=click.Path(path_type=Path), default=Path("out/demo"), show_default=True)
def demo(output: Path, as_json: bool) -> None:
    """Tell the main job from start to end, on a mesh of its own. With --json the telling goes to stderr."""
    from recoup_local.demo.run import run
    from recoup_local.demo.story import StoryBroken
    from recoup_local.supervisor import StartError

    console = Console(highlight=False, width=max(110, Console().width), stderr=as_json)
    try:
        story = asyncio.run(run(output, console))
    except (StartError, StoryBroken) as error:
        _stop_with(EXIT_FAILED, str(error))
    except OSError as error:
        _stop_with(EXIT_FAILED, f"{output} can't be written ({error.strerror}). Choose another folder with --output.")
    except KeyboardInterrupt:
        console.print("\nstopped; nothing is left running")
        sys.exit(130)
    if as_json:
        click.echo(json.dumps(story.document()))


def _running(state: Path) -> int:
    """The supervisor's process id, or 0. Who holds the lock runs; a process id alone may be another's by now."""
    try:
        with (state / "supervisor.pid").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int((state / "supervisor.pid").read_text() or 0)
    except OSError:
        return 0
    return 0


def _require_running(state: Path) -> int:
    pid = _running(state)
    if not pid:
        _stop_with(EXIT_NOT_RUNNING, f"no mesh runs in {state}. `recoup local up` starts one.")
    return pid


def _runs_already(state: Path) -> str:
    return f"a mesh runs in {state} already. `recoup local down` ends it."


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
