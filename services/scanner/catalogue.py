"""Writes the catalogue of detections: `python -m services.scanner.catalogue [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path

from services._mesh.docs import write_or_check
from services.scanner.detections import DETECTIONS
from services.scanner.detections.announced import AZURE, AZURE_DISCOVERY, GCP, GCP_DISCOVERY
from services.scanner.detections.base import Detection

PAGE = Path(__file__).resolve().parents[2] / "docs" / "DETECTIONS.md"


def page() -> str:
    """The page's text."""
    lines = [
        "# Detections",
        "Generated from `services/scanner/detections` by `make docs`; never edited. Ages come from Recoup's own",
        "first-seen ledger where the provider keeps none; a missing fact is *undetermined*, never zero; what is held,",
        "managed as code or autoscaled is reported and not proposed for action.",
        "",
    ]
    for detection in DETECTIONS:
        lines += _entry(detection)
    return "\n".join([*lines, *_announced()])


def _announced() -> list[str]:
    """What connections of other clouds are asked for."""
    lines = ["## Azure and Google Cloud", "Nothing is detected there yet. What connections are asked for:", ""]
    for discovery, announced in ((AZURE_DISCOVERY, AZURE), (GCP_DISCOVERY, GCP)):
        lines.append(f"- to see what there is, and what is allowed: {_codes(discovery)}")
        lines += [f"- for `{name}`: {_codes(permissions)}" for name, permissions in announced.items()]
    return [*lines, ""]


def _entry(detection: Detection) -> list[str]:
    thresholds = "; ".join(
        f"{name} {t.default} {t.unit} (may be set from {t.lowest} to {t.highest})"
        for name, t in detection.thresholds.items()
    )
    return [
        f"## {detection.detection_id}",
        f"{detection.title}. Severity {detection.severity.lower()}.",
        "",
        f"- resource: `{detection.resource_type}`",
        f"- thresholds: {thresholds or 'none'}",
        f"- reads: {_codes(detection.reads)}",
        f"- proposes: {_codes((detection.action_type,)) if detection.action_type else 'nothing yet (reported only)'}",
        f"- which needs: {_codes(detection.action_permissions) or 'nothing'}",
        f"- taken back by: {detection.rollback} {_codes(detection.rollback_permissions)}".rstrip(),
        "",
    ]


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page(), sys.argv[1:]))
