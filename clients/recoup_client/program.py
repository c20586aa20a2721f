"""The command line's outermost layer: how a command ends when it can't do what was asked. No traceback unless asked."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from importlib.metadata import EntryPoint
from typing import Any

import click

from recoup_client.rest import GatewayRefused, GatewayUnreachable, WrongUse
from recoup_client.session import Group, Unwritten, clean

EXIT_REFUSED, EXIT_WRONG_USE, EXIT_UNREACHABLE = 1, 2, 3
_MOST_CHARACTERS = 500
# What a stream that was open fails with: a full disk or quota, a file that is too large, a device or stream gone.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class Program(Group):
    """The command line as a whole. Every ending has its documented exit code and says why on stderr."""

    group_class = Group

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        # Commands of other wheels, each loaded when it is wanted: what one of them imports costs the others nothing.
        self.others: dict[str, EntryPoint] = {}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name in self.others:
            self.add_command(self.others.pop(cmd_name).load(), cmd_name)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted({*super().list_commands(ctx), *self.others})

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the command that the arguments name; ends in SystemExit."""
        _speak_any_character()
        if sys.stdout is None:  # Python's word for a closed one. Nobody could be told what was done.
            click.echo("recoup: stdout is closed; send what isn't wanted to /dev/null", err=True)
            sys.exit(EXIT_REFUSED)
        try:
            return super().main(*arguments, **settings)
        except Exception as error:
            code, lines = _ending(error)
            with suppress(OSError):
                click.echo("\n".join(clean(line) for line in lines), err=True)
            sys.exit(code)
        finally:
            _let_go()


def _ending(error: Exception) -> tuple[int, list[str]]:
    """The exit code, and what is said on stderr. Raises what isn't foreseen again if its traceback is wanted."""
    match error:
        case GatewayRefused():
            violations = [f"  {v.get('field', '')}: {v.get('description', '')}" for v in error.violations]
            reason = f"  reason {error.reason}, request {error.request_id}"
            return EXIT_REFUSED, [f"recoup: {error}", *violations, reason]
        case GatewayUnreachable():
            return EXIT_UNREACHABLE, [f"recoup: {error}. Is the address right, and the gateway up?"]
        case WrongUse():
            return EXIT_WRONG_USE, [f"recoup: {error}"]
        case Unwritten():
            return EXIT_REFUSED, [f"recoup: the gateway did what was asked, but the answer can't be written: {error}"]
        case OSError() if error.errno in _UNWRITABLE and error.filename is None:
            return EXIT_REFUSED, [f"recoup: the output can't be written: {error.strerror}"]
    if os.environ.get("RECOUP_DEBUG"):
        raise error
    text = f"{type(error).__name__}: {error}"[:_MOST_CHARACTERS]
    return EXIT_REFUSED, [f"recoup: this wasn't foreseen: {text} (the same with RECOUP_DEBUG=1 shows the traceback)"]


def _speak_any_character() -> None:
    """A terminal that can't show a character gets its number, not a failure."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flushes(stream: Any) -> bool:
    try:
        stream.flush()
    except OSError:
        return False
    return True


def _let_go() -> None:
    """Give up what can't be written, or else the interpreter tries again at its end and changes the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not _flushes(stream):
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
