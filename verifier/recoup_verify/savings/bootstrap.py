"""The bootstrap interval of METHOD.md: whole numbers from a stream of SHA-256, so that everybody draws the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from hashlib import sha256
from struct import unpack
from typing import NamedTuple

from recoup_verify.savings.method import Costs, Evidence, by_day, pool

_SCALE = 10**12
_ROUNDS, _LOW, _HIGH = 1_000, 50, 949
_WORDS, _AT_ONCE = 2**32, 256


class Interval(NamedTuple):
    """The 90 % interval of the economic amount."""

    low: Decimal
    high: Decimal


class Draws:
    """Draws without bias from the stream of a seed."""

    def __init__(self, plan_hash: str, days: int) -> None:
        self._seed = sha256(f"recoup-savings/1/{plan_hash}/{days}".encode()).digest()
        self._words, self._place, self._blocks = tuple[int, ...](), 0, 0

    def below(self, n: int, times: int) -> list[int]:
        """The next draws from 0 to n - 1; words that would favour some of these are left out."""
        start, fair = self._place, _WORDS - _WORDS % n
        self._place += times
        taken = self._words[start : self._place]
        found = [word % n for word in taken if word < fair]
        if len(taken) < times:
            self._read()
        return found if len(found) == times else found + self.below(n, times - len(found))

    def _read(self) -> None:
        """The stream's next blocks: SHA-256 of the seed and a counter, each eight words."""
        numbers = range(self._blocks, self._blocks + _AT_ONCE)
        blocks = b"".join([sha256(self._seed + number.to_bytes(8, "big")).digest() for number in numbers])
        self._words, self._place, self._blocks = unpack(f">{8 * _AT_ONCE}I", blocks), 0, numbers.stop


def interval(evidence: Evidence, costs: Costs, plan_hash: str) -> Interval:
    """Draw the medians and the residuals anew, 1,000 times."""
    resampling = _Resampling(evidence, costs)
    draws = Draws(plan_hash, len(evidence.window))
    totals = sorted(resampling.total(draws) for _ in range(_ROUNDS))
    return Interval(Decimal(totals[_LOW]) / _SCALE, Decimal(totals[_HIGH]) / _SCALE)


class _Resampling:
    """Tables of whole numbers: by window day and baseline day the cost and the residual, and what was spent."""

    def __init__(self, evidence: Evidence, costs: Costs) -> None:
        days = evidence.baseline_days
        places = {day: place for place, day in enumerate(days)}
        self._count = len(days)
        self._weekdays = [d.weekday() for d in evidence.window]
        self._pools = {w: [places[t] for t in pool(days, w)] for w in sorted(set(self._weekdays))}
        self._costs = [[_whole(costs.of(t, d, "effective")) for t in days] for d in evidence.window]
        self._residuals = [_residuals(days, places, line) for line in self._costs]
        spent = [by_day(rows, "effective") for rows in (evidence.rows, evidence.leakage)]
        self._spent = sum(_whole(kind.get(d, Decimal(0))) for kind in spent for d in evidence.window)

    def total(self, draws: Draws) -> int:
        """One round."""
        drawn = {w: [members[n] for n in draws.below(len(members), len(members))] for w, members in self._pools.items()}
        found = -self._spent
        places = draws.below(self._count, len(self._weekdays))
        for weekday, costs, residuals, place in zip(self._weekdays, self._costs, self._residuals, places, strict=True):
            found += _median([costs[each] for each in drawn[weekday]]) + residuals[place]
        return found


def _residuals(days: Sequence[date], places: dict[date, int], costs: Sequence[int]) -> list[int]:
    medians = {w: _median([costs[places[t]] for t in pool(days, w)]) for w in {day.weekday() for day in days}}
    apart = [cost - medians[day.weekday()] for day, cost in zip(days, costs, strict=True)]
    mean = sum(apart) // len(apart)
    return [each - mean for each in apart]


def _whole(value: Decimal) -> int:
    return int((value * _SCALE).to_integral_value(ROUND_HALF_EVEN))


def _median(values: list[int]) -> int:
    values.sort()
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) // 2
