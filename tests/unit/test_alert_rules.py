"""The alert rules: well-formed, of metrics that the code exports, each with a section in the runbook."""

from __future__ import annotations

import re
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
}


def rules() -> list[dict[str, Any]]:
    found = []
    for path in sorted((ROOT / "deploy" / "alerts").glob("*.yml")):
        document = yaml.safe_load(path.read_text())
        assert list(document) == ["groups"]
        assert all(set(group) == {"name", "rules"} for group in document["groups"])
        found += [rule for group in document["groups"] for rule in group["rules"]]
    return found


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
        assert name in metrics, f"nothing exports {name}"
        for label in re.findall(r"(\w+)=", selector):
            assert f"{label}=" in metrics[name], f"{name} has no label {label}"
    words = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|recoup_\w+', "", expression)
    assert set(re.findall(r"[a-z_]+", words)) <= FUNCTIONS


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sections == sorted(set(sections), key=sections.index)
    assert set(sections) == {rule["alert"] for rule in rules()}
