"""The emulated cloud's README names all that can be set and read, so that nobody has to look into the proxy for it."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from recoup_local import cloud
from recoup_local.cloud.proxy import recorder
from recoup_local.cloud.proxy.ec2_rules import Delays
from recoup_local.cloud.proxy.faults import FaultRule

README = (Path(cloud.__file__).parent / "README.md").read_text()


def recorded_fields() -> list[str]:
    """The keys of a recorded line: those of the one dictionary that `_line` returns."""
    tree = ast.parse(Path(recorder.__file__).read_text())
    (line,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_line"]
    (answer,) = [node.value for node in ast.walk(line) if isinstance(node, ast.Return)]
    assert isinstance(answer, ast.Dict)
    return [str(ast.literal_eval(key)) for key in answer.keys if key is not None]


@pytest.mark.parametrize(
    "name", [*(f.name for f in fields(FaultRule)), *(f.name for f in fields(Delays)), *recorded_fields()]
)
def test_every_field_is_described(name: str) -> None:
    assert f"`{name}`" in README
