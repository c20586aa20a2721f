"""`recoup trace REQUEST_ID`: what one request did, over all processes, as a tree in the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
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

    Exit codes: 0 shown, 1 no such request (spans arrive a second late), 2 wrong use, 3 no mesh has run in the folder.
    """
    path = state / SPANS_FILE
    if not path.exists():
        _stop_with(EXIT_NOTHING, f"no mesh has run in {state.resolve()}: name its folder with --state.")
    wanted = {span.trace_id for span in _read(path) if request_id in (span.request_id, span.trace_id)}
    if not wanted:
        _stop_with(
            EXIT_UNKNOWN, f"no span of request {request_id} is there. Spans arrive about a second late; try again."
        )
    found = [span for span in _read(path) if span.trace_id in wanted]
    if as_json:
        click.echo(json.dumps([{"depth": depth, **asdict(span)} for depth, span in tree(found)], indent=2))
        return
    console = Console(highlight=False)
    for trace_id in sorted(wanted, key=lambda each: min(s.start_ns for s in found if s.trace_id == each)):
        _show(console, trace_id, [span for span in found if span.trace_id == trace_id], sql=sql)


def _read(path: Path) -> Iterator[SeenSpan]:
    """The spans of the file, one at a time; its last line may be half written, and older ones know less."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("\n"):
                yield SeenSpan(**{name: value for name, value in json.loads(line).items() if name in _FIELDS})


def _show(console: Console, trace_id: str, spans: list[SeenSpan], *, sql: bool) -> None:
    began = min(span.start_ns for span in spans)
    processes = {span.process for span in spans}
    lasted = (max(span.end_ns for span in spans) - began) / 1e6
    failed = sum(span.failed for span in spans)
    told = f"{len(spans)} spans over {len(processes)} processes, {lasted:.1f} ms"
    root = Tree(f"[bold]trace {trace_id}[/]  {told}" + (f", [red]{failed} failed[/]" if failed else ""))
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


def _stop_with(code: int, message: str) -> None:
    click.echo(f"recoup: {message}", err=True)
    raise SystemExit(code)
