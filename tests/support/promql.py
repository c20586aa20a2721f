"""What a PromQL expression asks for, by a parser that checks it as Prometheus does: functions, arguments and types.

promtool is in no registry of Python's or npm's, and Debian's is another version in each release: it can't be locked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What a histogram is shown as.
PARTS = ("_bucket", "_count", "_sum")
# Grafana puts a duration in its place.
_INTERVAL = re.compile(r"\$__(rate_)?interval")


@dataclass(frozen=True)
class Asked:
    """One series that an expression selects, and the labels that it selects or groups it by."""

    name: str
    labels: frozenset[str]
    # By label, the values that are named one by one.
    values: dict[str, frozenset[str]] = field(default_factory=dict, compare=False)


def asked(expression: str) -> list[Asked]:
    """Every series of an expression. Raises ValueError where Prometheus wouldn't take it."""
    return list(_asked(promql_parser.parse(_INTERVAL.sub("5m", expression)), frozenset()))


def _asked(node: Any, labels: frozenset[str]) -> Iterator[Asked]:
    match node:
        case promql_parser.MatrixSelector():
            yield from _asked(node.vector_selector, labels)
        case promql_parser.VectorSelector():
            matchers = [each for each in node.matchers.matchers if each.name != "__name__"]
            yield Asked(str(node.name), labels | {each.name for each in matchers}, _values(matchers))
        case promql_parser.Call():
            for each in node.args:
                yield from _asked(each, labels)
        case promql_parser.BinaryExpr():
            yield from _asked(node.lhs, labels)
            yield from _asked(node.rhs, labels)
        case promql_parser.AggregateExpr():
            yield from _asked(node.expr, labels | frozenset(node.modifier.labels if node.modifier else ()))
        case promql_parser.ParenExpr() | promql_parser.UnaryExpr() | promql_parser.SubqueryExpr():
            yield from _asked(node.expr, labels)
        case _:
            assert isinstance(node, promql_parser.NumberLiteral | promql_parser.StringLiteral), node


def _values(matchers: list[Any]) -> dict[str, frozenset[str]]:
    found = {}
    for each in matchers:
        alternatives = each.value.split("|")
        wants = each.op in (promql_parser.MatchOp.Equal, promql_parser.MatchOp.Re)
        if wants and all(re.fullmatch(r"[\w.]+", value) and ".." not in value for value in alternatives):
            found[each.name] = frozenset(alternatives)
    return found


def family(name: str, families: Any) -> str:
    """The family that a series belongs to: a histogram's parts have names of their own."""
    if name in families:
        return name
    return next((name.removesuffix(part) for part in PARTS if name.endswith(part)), name)


def rules() -> list[dict[str, Any]]:
    """All alert rules."""
    found: list[dict[str, Any]] = []
    for path in sorted((ROOT / "deploy" / "alerts").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            found += group["rules"]
    return found


def dashboards() -> list[Path]:
    """The files of all dashboards."""
    return sorted((ROOT / "deploy" / "dashboards").glob("*.json"))


def panels(path: Path) -> list[dict[str, Any]]:
    """A dashboard's panels, its rows apart."""
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


@cache
def exported() -> dict[str, str]:
    """The metrics that the services make, with the lines that make them."""
    found: dict[str, str] = {}
    for path in (ROOT / "services").rglob("*.py"):
        source = path.read_text()
        for match in re.finditer(r'\b(?:counter|gauge|histogram)\(\s*"(recoup_[a-z_]+)"', source):
            found[match[1]] = source[match.start() : match.start() + 300]
    return found
