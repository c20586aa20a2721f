"""`recoup trace REQUEST_ID`: what one request did, over all processes, as a tree in the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sized
from dataclasses import asdict, fields
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from recoup_local.otlp import SPANS_FILE, SeenSpan, tree

EXIT_UNKNOWN, EXIT_NOTHING = 1, 3
# What a terminal shows; --json has all.
SHOWN = 500
# How long a mesh that runs may take to send what is missed, and between two looks.
WAIT_SECONDS, AGAIN_SECONDS = 4.0, 0.25
WHOLE_LINE = 1000
FACTS_FILE = "facts.json"
_CALL = "call "
_FIELDS = {field.name for field in fields(SeenSpan)}


@click.command()
@click.argument("request_id")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path(".recoup"),
    show_default=True,
    help="the folder that the mesh lives in",
)
@click.option("--sql", is_flag=True, help="show statements too")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def trace(request_id: str, state: Path, sql: bool, as_json: bool) -> None:
    """Show the spans that a request left in the mesh of `recoup local`.

    REQUEST_ID is what the answer's X-Request-Id says, or a problem's "requestId"; a trace id does as well.

    A job that came again is a trace of its own, which is shown after the one that it is linked to.

    Exit codes: 0 shown, 1 no such request, 2 wrong use, 3 no mesh has run in the folder.
    """
    path = state / SPANS_FILE
    if not path.exists():
        _stop_with(EXIT_NOTHING, f"no mesh has run in {state.resolve()}: name its folder with --state.")
    found = _awaited(path, request_id, WAIT_SECONDS if (state / FACTS_FILE).exists() else 0.0)
    if not found:
        _stop_with(EXIT_UNKNOWN, f"no span of request {request_id} is there.")
    if as_json:
        click.echo(json.dumps([{"depth": depth, **asdict(span)} for depth, span in tree(found)], indent=2))
        return
    # On a terminal what doesn't fit is folded; into a file or a pipe each line goes whole.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WHOLE_LINE)
    traces = dict[str, list[SeenSpan]]()
    for span in sorted(found, key=lambda each: each.start_ns):
        traces.setdefault(span.trace_id, []).append(span)
    for spans in traces.values():
        _show(console, spans, sql=sql)
    if not _is_whole(found):
        click.echo("recoup: not all of it is here: spans name others that didn't arrive.", err=True)


def _awaited(path: Path, request_id: str, seconds: float) -> list[SeenSpan]:
    """A request's spans, and those of the traces that come from its own. Processes send theirs each for itself, about
    a second late: as long as one is missed, it is waited for.
    """
    ends_at = time.monotonic() + seconds
    while True:
        wanted = {span.trace_id for span in _read(path) if request_id in (span.request_id, span.trace_id)}
        linked = {span.trace_id for span in _read(path) if wanted & {*span.linked}} if wanted else set()
        found = [span for span in _read(path) if span.trace_id in wanted | linked]
        if (found and _is_whole(found)) or time.monotonic() >= ends_at:
            return found
        time.sleep(AGAIN_SECONDS)


def _is_whole(spans: list[SeenSpan]) -> bool:
    """Whether each span's parent is here, and of each call what was called."""
    known, parents = {span.span_id for span in spans}, {span.parent_id for span in spans}
    return parents <= {*known, ""} and all(
        span.span_id in parents or span.failed for span in spans if span.name.startswith(_CALL)
    )


def _read(path: Path) -> Iterator[SeenSpan]:
    """The spans of the file, one at a time; its last line may be half written, and older ones know less."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                said = {name: value for name, value in json.loads(line).items() if name in _FIELDS}
                yield SeenSpan(**{**said, "linked": tuple(said.get("linked", ()))})


def _show(console: Console, spans: list[SeenSpan], *, sql: bool) -> None:
    began = min(span.start_ns for span in spans)
    processes = {span.process for span in spans}
    lasted = (max(span.end_ns for span in spans) - began) / 1e6
    failed = sum(span.failed for span in spans)
    told = f"{_count(spans, 'span')} over {_count(processes, 'process', 'es')}, {lasted:.1f} ms"
    comes_from = sorted({each for span in spans for each in span.linked})
    told += f", linked to trace {', '.join(comes_from)}" if comes_from else ""
    root = Tree(f"[bold]trace {spans[0].trace_id}[/]  {told}" + (f", [red]{failed} failed[/]" if failed else ""))
    # What hangs below a statement that isn't shown hangs below what made the statement.
    above, left = [root], SHOWN
    for depth, span in tree(spans):
        del above[depth + 1 :]
        if (span.name.startswith("sql") and not sql and not span.failed) or left == 0:
            above.append(above[-1])
            continue
        left -= 1
        above.append(above[-1].add(_line(span, began)))
    console.print(root)
    if left == 0:
        console.print(f"  the first {SHOWN} are shown; --json has all of them")


def _line(span: SeenSpan, began: int) -> str:
    name = f"[red]{escape(span.name)} failed[/]" if span.failed else escape(span.name)
    after, lasted = (span.start_ns - began) / 1e6, (span.end_ns - span.start_ns) / 1e6
    return f"{name}  [cyan]{escape(span.process)}[/]  [dim]+{after:.1f} ms[/]  {lasted:.1f} ms"


def _count(things: Sized, name: str, plural: str = "s") -> str:
    return f"{len(things)} {name}{plural if len(things) != 1 else ''}"


def _stop_with(code: int, message: str) -> None:
    click.echo(f"recoup: {message}", err=True)
    raise SystemExit(code)
