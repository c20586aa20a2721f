"""The bootstrap interval of METHOD.md: whole numbers from a stream of SHA-256, so that everybody draws the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from struct import unpack
from typing import NamedTuple

from recoup_verify.savings.method import Costs, Evidence, by_day, pool

_SCALE = 10**12
_ROUNDS, _LOW, _HIGH = 1_000, 50, 949
_WORDS = 2**32


class Interval(NamedTuple):
    """The 90 % interval of the economic amount."""

    low: Decimal
    high: Decimal


class Draws:
    """Draws below `n`, without bias, from the stream of a seed."""

    def __init__(self, plan_hash: str, days: int) -> None:
        self._words = _stream(hashlib.sha256(f"recoup-savings/1/{plan_hash}/{days}".encode()).digest())

    def below(self, n: int) -> int:
        """The next draw from 0 to n - 1."""
        word = next(self._words)
        while word >= _WORDS - _WORDS % n:
            word = next(self._words)
        return word % n


def _stream(seed: bytes) -> Iterator[int]:
    counter = 0
    while True:
        yield from unpack(">8I", hashlib.sha256(seed + counter.to_bytes(8, "big")).digest())
        counter += 1


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
        drawn = {w: [members[draws.below(len(members))] for _ in members] for w, members in self._pools.items()}
        found = -self._spent
        for weekday, costs, residuals in zip(self._weekdays, self._costs, self._residuals, strict=True):
            found += _median([costs[place] for place in drawn[weekday]]) + residuals[draws.below(self._count)]
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
