"""The `recoup` command line at a mesh, within the test's own process: starting one takes longer than what it does.

What only a process of its own shows (its streams, how it ends) stands in tests/unit/test_client_cli.py.
"""

from __future__ import annotations

import json
import os
from typing import Any

from click.testing import CliRunner, Result

from recoup_client.cli import main
from tests.support.mesh import TestMesh

DONE, REFUSED, WRONG_USE, UNREACHABLE = 0, 1, 2, 3
# Wide enough that no cell of a table is folded.
_COLUMNS = "250"


def recoup(made: TestMesh, token: str, *arguments: str, **environment: str) -> Result:
    """A command under a session or API token. Nothing else of this process's environment tells it who it is."""
    given = {
        **dict.fromkeys(name for name in os.environ if name.startswith("RECOUP_")),
        "RECOUP_GATEWAY": made.mesh.gateway_url,
        "RECOUP_CA": str(made.mesh.installation.ca.cert_file),
        "RECOUP_TOKEN": token,
        "COLUMNS": _COLUMNS,
        **environment,
    }
    done = CliRunner().invoke(main, arguments, env=given)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "wasn't foreseen" not in done.stderr, done.stderr
    return done


def said(done: Result) -> dict[str, Any]:
    """The JSON that a command printed, and nothing else."""
    assert done.exit_code == DONE, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
