"""The alert rules: well-formed, of metrics that the code exports, each with a section in the runbook."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "docs" / "RUNBOOK.md"
DURATION = re.compile(r"\d+[smhd]")
SERIES = re.compile(r"\b(recoup_[a-z_]+)\b(?:\{([^}]*)\})?")
FUNCTIONS = {
    "max",
    "min",
    "sum",
    "increase",
    "time",
    "absent",
    "by",
    "or",
    "scope",
    "service",
    "kind",
    "witness",
    "reason",
    "rate",
    "and",
}
# What a histogram is shown as.
PARTS = ("_bucket", "_count", "_sum")


def rules() -> list[dict[str, Any]]:
    found = []
    for path in sorted((ROOT / "deploy" / "alerts").glob("*.yml")):
        document = yaml.safe_load(path.read_text())
        assert list(document) == ["groups"]
        assert all(set(group) == {"name", "rules"} for group in document["groups"])
        found += [rule for group in document["groups"] for rule in group["rules"]]
    return found


@cache
def exported() -> dict[str, str]:
    """The metrics that the services make, with the lines that make them."""
    found: dict[str, str] = {}
    for path in (ROOT / "services").rglob("*.py"):
        source = path.read_text()
        for match in re.finditer(r'\b(?:counter|gauge|histogram)\(\s*"(recoup_[a-z_]+)"', source):
            found[match[1]] = source[match.start() : match.start() + 300]
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_is_whole(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[A-Z][A-Za-z]+", rule["alert"])
    assert "for" not in rule or DURATION.fullmatch(rule["for"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "runbook"}
    anchor = rule["annotations"]["runbook"].removeprefix("docs/RUNBOOK.md#")
    assert anchor == rule["alert"].lower()
    assert f"\n## {rule['alert']}\n" in RUNBOOK.read_text()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_expression_is_of_metrics_that_there_are(rule: dict[str, Any]) -> None:
    expression, metrics = rule["expr"], exported()
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)
    used = SERIES.findall(expression)
    assert used
    for name, selector in used:
        part = next((each for each in PARTS if name.endswith(each) and name not in metrics), "")
        name = name.removesuffix(part)
        assert name in metrics, f"nothing exports {name}"
        assert not part or metrics[name].startswith("histogram"), f"{name} is no histogram"
        for label in set(re.findall(r"(\w+)(?:=|!~)", selector)) - ({"le"} if part == "_bucket" else set()):
            assert f"{label}=" in metrics[name], f"{name} has no label {label}"
    words = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|recoup_\w+', "", expression)
    assert set(re.findall(r"[a-z_]+", words)) <= FUNCTIONS


def dashboards() -> list[Path]:
    return sorted((ROOT / "deploy" / "dashboards").glob("*.json"))


@pytest.mark.parametrize("path", dashboards(), ids=lambda path: path.stem)
def test_a_dashboard_shows_metrics_that_there_are_and_every_panel_fits(path: Path) -> None:
    board, metrics = json.loads(path.read_text()), exported()
    assert (board["uid"], board["editable"]) == (path.stem, True)
    assert board["title"]
    taken: set[tuple[int, int]] = set()
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
        for target in panel["targets"]:
            expression = target["expr"]
            assert expression.count("(") == expression.count(")")
            names = [name for name, _ in SERIES.findall(expression)]
            assert names, panel["title"]
            for name in names:
                whole = name if name in metrics else re.sub(r"_(bucket|count|sum)$", "", name)
                assert whole in metrics, f"{panel['title']}: nothing exports {name}"


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sections == sorted(set(sections), key=sections.index)
    assert set(sections) == {rule["alert"] for rule in rules()}
