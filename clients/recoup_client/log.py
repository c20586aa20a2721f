"""Commands that read the whole log as C2SP tlog-tiles has it: for members of the platform organization."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

import click

from recoup_client.rest import GatewayUnreachable
from recoup_client.session import Group, Session

_WIDTH, _HASH = 256, 32
_shard = click.option("--shard", type=click.IntRange(0), help="the shard; the newest where it isn't given")
_output = click.option("--output", "-o", type=click.Path(path_type=Path), help="a file for it, as it came")


class _Head(NamedTuple):
    origin: str
    size: int
    root: str


@click.group(cls=Group)
def log() -> None:
    """Read checkpoints and hash tiles of the whole log, as a member of the platform organization."""


@log.command("checkpoint")
@_shard
@_output
@click.pass_obj
def log_checkpoint(session: Session, shard: int | None, output: Path | None) -> None:
    """Print the newest checkpoint: a signed note, for recoup-verify checkpoint."""
    note = _note(session, shard)
    head = _head(note)
    document = {"note": note, "origin": head.origin, "size": str(head.size), "root": head.root}
    if output is None:
        session.say(document, note)
    else:
        _write(output, note.encode())
        session.show({**document, "file": str(output)}, [(head.origin, str(head.size), str(output))],
                     "origin", "size", "file")  # fmt: skip


@log.command("tile")
@click.argument("level", type=click.IntRange(0, 63))
@click.argument("index", type=click.IntRange(0))
@click.option("--width", type=click.IntRange(1, _WIDTH), help="how many hashes; what the newest checkpoint has")
@_shard
@_output
@click.pass_obj
def log_tile(
    session: Session, level: int, index: int, width: int | None, shard: int | None, output: Path | None
) -> None:
    """Read a tile: up to 256 hashes of a level, 0 for the leaves'. Each stands on a line, in hexadecimal."""
    if width is None:
        nodes = _head(_note(session, shard)).size >> 8 * level
        # Where the tree has none of it, the gateway says so.
        width = max(0, min(_WIDTH, nodes - index * _WIDTH)) or _WIDTH
    name = f"{level}/{_index_name(index)}" + ("" if width == _WIDTH else f".p/{width}")
    octets = session.octets(f"{_prefix(shard)}/tile/{name}", "application/octet-stream")
    if len(octets) != width * _HASH:
        raise GatewayUnreachable(f"what answered isn't a Recoup gateway ({len(octets)} bytes for {width} hashes)")
    hashes = [octets[place : place + _HASH] for place in range(0, len(octets), _HASH)]
    document = {"tile": name, "hashes": [base64.b64encode(each).decode() for each in hashes]}
    if output is None:
        session.say(document, "".join(f"{each.hex()}\n" for each in hashes))
    else:
        _write(output, octets)
        session.show({**document, "file": str(output)}, [(name, str(width), str(output))], "tile", "hashes", "file")


def _note(session: Session, shard: int | None) -> str:
    octets = session.octets(f"{_prefix(shard)}/checkpoint", "text/plain")
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        raise GatewayUnreachable("what answered isn't a Recoup gateway (no checkpoint)") from error


def _head(note: str) -> _Head:
    lines = note.split("\n")
    if len(lines) < 4 or not lines[1].isdecimal() or not all(line.isprintable() for line in lines):
        raise GatewayUnreachable("what answered isn't a Recoup gateway (no checkpoint)")
    return _Head(lines[0], int(lines[1][:20]), lines[2])


def _prefix(shard: int | None) -> str:
    return "/log" if shard is None else f"/log/shards/{shard}"


def _index_name(index: int) -> str:
    """An index in groups of three digits, each but the last with an x (C2SP tlog-tiles): 1234067 is x001/x234/067."""
    groups = f"{index:,}".split(",")
    return "/".join([*(f"x{group:0>3}" for group in groups[:-1]), f"{groups[-1]:0>3}"])


def _write(output: Path, octets: bytes) -> None:
    try:
        output.write_bytes(octets)
    except OSError as error:
        raise click.ClickException(f"{output} can't be written: {error.strerror}") from error
