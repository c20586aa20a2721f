"""What people give by file or stdin, since no argument may hold it: others on the machine see a process's arguments."""

from __future__ import annotations

import csv
import io
import json
import sys
from typing import Any

import click

from recoup_client.rest import WrongUse

_MAX_BYTES = 65_536
_FORMS = "what `aws iam create-access-key` prints, or the file that the console downloads"


def secret_text(file: str, what: str) -> str:
    """The text of a file, or of stdin where it is named "-"; asked for unseen where that is a terminal.

    Raises WrongUse, which never holds any of it.
    """
    if file == "-" and sys.stdin.isatty():
        asked: str = click.prompt(what, hide_input=True, err=True)
        return asked
    try:
        with click.open_file(file, "rb") as opened:
            found: bytes = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise WrongUse(f"{what}: the file {file} can't be read: {error.strerror}") from error
    if len(found) > _MAX_BYTES:
        raise WrongUse(f"{what}: the file {file} is larger than {_MAX_BYTES} bytes; name the right one")
    try:
        return found.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WrongUse(f"{what}: the file {file} isn't text; name the right one") from None


def aws_key(text: str) -> tuple[str, str]:
    """The id and the secret of an AWS access key, as they stand there. Raises WrongUse."""
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else _row(text)
        found = found.get("AccessKey", found)
        key = found["AccessKeyId"], found["SecretAccessKey"]
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError, csv.Error):
        key = None, None
    if not all(isinstance(half, str) and half for half in key):
        raise WrongUse(f"--key-file must be an AWS access key in one of two forms: {_FORMS}")
    return str(key[0]), str(key[1])


def _row(text: str) -> dict[str, Any]:
    """The row of the console's file."""
    (row,) = csv.DictReader(io.StringIO(text))
    return {"AccessKeyId": row["Access key ID"], "SecretAccessKey": row["Secret access key"]}
