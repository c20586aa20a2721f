"""How a benchmark measures: subject and floor in turn, several runs, medians and their ratio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from services._mesh.settings import OtlpSettings

RUNS = 5
# Of the processes that are measured, as in production.
TRACE_RATIO = OtlpSettings.ratio
Measure = Callable[[], Awaitable[float]]


@dataclass(frozen=True)
class Result:
    """One benchmark's outcome; `ratio` is subject / floor in the same unit. `facts` were measured beside it."""

    name: str
    median: float
    unit: str
    floor: str
    floor_median: float
    ratio: float
    runs: list[dict[str, float]]
    facts: Mapping[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The result as JSON."""
        return asdict(self)

    def line(self) -> str:
        """The result for a person."""
        facts = "".join(f"\n{'':24}{name}: {value:g}" for name, value in self.facts.items())
        return (
            f"{self.name:22} {self.median:10.1f} {self.unit:9} floor {self.floor_median:10.1f}"
            f"  ratio {self.ratio:.3f}  ({self.floor}){facts}"
        )


async def compare(name: str, unit: str, floor: str, subject: Measure, baseline: Measure, runs: int = RUNS) -> Result:
    """Measure subject and floor alternately, after one warm-up of each that isn't counted."""
    await baseline()
    await subject()
    found = []
    for _ in range(runs):
        below = await baseline()
        found.append({"subject": round(await subject(), 3), "floor": round(below, 3)})
    middle, below = median(run["subject"] for run in found), median(run["floor"] for run in found)
    return Result(name, middle, unit, floor, below, round(middle / below, 4), found)


def resident_mib(pid: int) -> float:
    """The resident memory of a process, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmRSS:"))
