"""Bar charts as inline SVG: no scripts, good in print, with a title and a description for who can't see them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.audit.model.evidence.markup import text

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 220, 64, 34, 14
# Where there are more bars, not each gets a label.
_MOST_LABELS = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its label below, its value, and how the value is written."""

    label: str
    value: float
    shown: str


def bars(name: str, title: str, description: str, values: Sequence[Bar]) -> str:
    """A bar chart, zero included. `name` is an id in the page; all texts are escaped here."""
    top = max((bar.value for bar in values), default=0.0)
    low = min((bar.value for bar in values), default=0.0)
    top, low = max(top, 0.0), min(low, 0.0)
    span = (top - low) or 1.0
    high = _HEIGHT - _BOTTOM - _TOP

    def at(value: float) -> float:
        return _TOP + (top - value) / span * high

    parts = [
        f'<svg role="img" aria-labelledby="{name}-title {name}-text" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        f'<title id="{name}-title">{text(title)}</title><desc id="{name}-text">{text(description)}</desc>',
        *(_line(at(value), f"{value:,.6g}") for value in sorted({top, low, 0.0})),
    ]
    step = (_WIDTH - _LEFT) / max(len(values), 1)
    every = -(-len(values) // _MOST_LABELS) or 1
    for place, bar in enumerate(values):
        x, y = _LEFT + place * step, min(at(bar.value), at(0.0))
        width, height = max(step * 0.8, 0.5), abs(at(bar.value) - at(0.0))
        colour = "#1f6f5c" if bar.value >= 0 else "#9c2f2f"
        parts.append(
            f'<rect x="{x + step * 0.1:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}">'
            f"<title>{text(bar.label)}: {text(bar.shown)}</title></rect>"
        )
        if place % every == 0:
            middle = x + step / 2
            parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{text(bar.label)}</text>')
            if len(values) <= _MOST_LABELS:
                above = max(y - 3, _TOP - 3)
                parts.append(f'<text x="{middle:.1f}" y="{above:.1f}" text-anchor="middle">{text(bar.shown)}</text>')
    return "".join([*parts, "</svg>"])


def _line(y: float, label: str) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8a8f98" stroke-width="0.6"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )
