"""The alert rules and dashboards: such as Prometheus and Grafana take, of metrics that the code exports, each alert
with a section in the runbook. tests/mesh/test_metrics.py looks for the same metrics in a live mesh.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from recoup_local.layout import PROCESSES
from tests.support.promql import PARTS, Asked, asked, dashboards, exported, family, panels, rules

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "docs" / "RUNBOOK.md"
DURATION = re.compile(r"\d+[smhd]")
# What the dashboard must show besides: what an operator looks at first (docs/SLO.md).
SHOWN = {
    "rates of calls": "recoup_rpc_total",
    "durations of calls": "recoup_rpc_seconds",
    "rates at the edge": "recoup_http_total",
    "durations at the edge": "recoup_http_seconds",
    "depths of queues": "recoup_jobs_due",
    "ages of queues": "recoup_jobs_oldest_seconds",
    "overdue timers of jobs": "recoup_jobs_overdue",
    "overdue timers of identity": "recoup_identity_due_late",
    "ages of outboxes": "recoup_outbox_age_seconds",
    "log lag": "recoup_log_unsigned_seconds",
    "age of the checkpoint": "recoup_log_checkpoint_age_seconds",
    "failures of key services": "recoup_broker_decrypt_failures",
    "limits of organizations": "recoup_http_refused",
}
# Of these, an alert as well, and by it a section of the runbook.
ALERTED = (
    *("recoup_http_total", "recoup_rpc_seconds", "recoup_http_refused", "recoup_jobs_overdue"),
    *("recoup_identity_due_late", "recoup_outbox_age_seconds", "recoup_log_unsigned_seconds"),
    *("recoup_log_cosigned_age_seconds", "recoup_broker_decrypt_failures"),
)


def test_the_files_hold_groups_of_rules_and_nothing_else() -> None:
    for path in sorted((ROOT / "deploy" / "alerts").glob("*.yml")):
        document = yaml.safe_load(path.read_text())
        assert list(document) == ["groups"]
        assert all(set(group) == {"name", "rules"} for group in document["groups"])
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))


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
    assert rule["annotations"]["summary"].count("{{") == rule["annotations"]["summary"].count("}}")


def require_exported(expression: str) -> list[Asked]:
    """Every series of an expression, each of a metric that the code exports, with labels that it has."""
    metrics = exported()
    found = asked(expression)
    assert found, expression
    for each in found:
        name = family(each.name, metrics)
        assert name in metrics, f"nothing exports {each.name}"
        is_part = name != each.name
        assert not is_part or metrics[name].startswith("histogram"), f"{name} is no histogram"
        assert is_part or not metrics[name].startswith("histogram"), f"{name} is shown by its parts: {PARTS}"
        for label in each.labels - ({"le"} if each.name.endswith("_bucket") else set()):
            assert f"{label}=" in metrics[name], f"{name} has no label {label}"
    return found


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_expression_is_of_metrics_that_there_are(rule: dict[str, Any]) -> None:
    found = require_exported(rule["expr"])
    for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
        assert any(label in each.labels for each in found), f"the summary names {label}, by which nothing is grouped"


@pytest.mark.parametrize("path", dashboards(), ids=lambda path: path.stem)
def test_every_panel_shows_metrics_that_there_are_and_fits(path: Path) -> None:
    board = json.loads(path.read_text())
    assert (board["uid"], board["editable"]) == (path.stem, True)
    assert board["title"]
    taken: set[tuple[int, int]] = set()
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in panels(path):
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${source}"}
        for target in panel["targets"]:
            found = require_exported(target["expr"])
            # Each bucket has a trace as its exemplar.
            assert target.get("exemplar", False) == any(each.name.endswith("_bucket") for each in found), panel["title"]
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert any(label in each.labels for each in found), f"{panel['title']}: nothing is grouped by {label}"
    for variable in board["templating"]["list"][1:]:
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
        assert f"{label}=" in exported()[name]


@pytest.mark.parametrize("path", dashboards(), ids=lambda path: path.stem)
def test_a_dashboard_says_nothing_that_grafana_doesnt_know(path: Path) -> None:
    """Grafana's own models read it, and what they write has all that was read: a misspelled field would be gone."""
    register_default_plugins()
    board = json.loads(path.read_text())
    known = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(board)))
    assert not list(unknown(board, known, ""))


def unknown(said: Any, known: Any, at: str) -> list[str]:
    """What is said and not known, by its place."""
    if isinstance(said, dict) and isinstance(known, dict):
        return [line for name in said for line in unknown(said[name], known.get(name), f"{at}/{name}")]
    if isinstance(said, list) and isinstance(known, list) and len(said) == len(known):
        return [line for place, each in enumerate(said) for line in unknown(each, known[place], f"{at}/{place}")]
    return [] if said == known else [f"{at}: {said!r} is {known!r}"]


def test_the_dashboard_shows_what_operators_look_at_first() -> None:
    shown = {
        family(each.name, exported())
        for path in dashboards()
        for panel in panels(path)
        for target in panel["targets"]
        for each in asked(target["expr"])
    }
    assert not {what: name for what, name in SHOWN.items() if name not in shown}
    alerted = {family(each.name, exported()) for rule in rules() for each in asked(rule["expr"])}
    assert not set(ALERTED) - alerted


@pytest.mark.parametrize(
    "wrong",
    [
        "rate(recoup_http_total)",
        "sum(recoup_http_total[5m])",
        "nothing(recoup_http_total)",
        "sum(rate(recoup_http_total[5m])",
        "recoup_http_total{status=~5}",
    ],
)
def test_what_prometheus_wouldnt_take_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        asked(wrong)


def test_the_absence_of_each_process_is_an_alert() -> None:
    """Nobody else says so: what isn't scraped has no failures. The witness is somebody else's, mostly."""
    (gone,) = (rule["expr"] for rule in rules() if rule["alert"] == "ProcessGone")
    watched = re.findall(r'absent\(recoup_build_info\{process="([a-z-]+)"\}\)', gone)
    assert sorted(watched) == sorted({spec.name for spec in PROCESSES} - {"audit-witness"})


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sections == sorted(set(sections), key=sections.index)
    assert set(sections) == {rule["alert"] for rule in rules()}
