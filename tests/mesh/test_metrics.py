"""What alerts and dashboards ask for is there when a live mesh is scraped, with the labels that they ask by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.mesh import TestMesh
from tests.support.promql import Asked, asked, dashboards, family, panels, rules

pytestmark = pytest.mark.xdist_group("mesh")


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for path in dashboards():
        yield from (target["expr"] for panel in panels(path) for target in panel["targets"])


def scraped(made: TestMesh) -> tuple[Mapping[str, Mapping[str, set[str]]], set[str]]:
    """The labels of each series that any process shows, with their values, and the families with an exemplar."""
    series: dict[str, dict[str, set[str]]] = {}
    exemplars: set[str] = set()
    for port in made.mesh.installation.metrics_ports.values():
        answer = httpx.get(
            f"http://127.0.0.1:{port}/metrics",
            headers={"accept": "application/openmetrics-text; version=1.0.0"},
            timeout=5.0,
        )
        for found in text_string_to_metric_families(answer.text):  # type: ignore[no-untyped-call]
            for sample in found.samples:
                known = series.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    known.setdefault(label, set()).add(value)
                if sample.exemplar is not None:
                    exemplars.add(family(sample.name, {found.name}))
    return series, exemplars


def test_a_live_mesh_shows_what_alerts_and_dashboards_ask_for(made: TestMesh) -> None:
    person = made.rest("acme", "Viewer")
    assert person.get("/findings?pageSize=1")
    assert person.call("GET", "/nothing").status_code == 404
    series, exemplars = scraped(made)
    missing = [each for expression in expressions() for each in asked(expression) if not is_shown(each, series)]
    assert not missing
    assert {"recoup_http_seconds", "recoup_rpc_seconds"} <= exemplars
    # By their templates: a caller makes up no label.
    routes = series["recoup_http_total"]["route"]
    assert "GET /v1/organizations/{organization_id}/findings" in routes
    assert not [route for route in routes if person.organization_id in route or "nothing" in route]


def is_shown(wanted: Asked, series: Mapping[str, Mapping[str, set[str]]]) -> bool:
    """Whether it is there with its labels. What it names one by one is there from the start, before it happens: of a
    count that appears as one, Prometheus sees no increase.
    """
    labels = series.get(wanted.name)
    if labels is None or wanted.labels - labels.keys():
        return False
    return all(values <= labels[label] for label, values in wanted.values.items())
