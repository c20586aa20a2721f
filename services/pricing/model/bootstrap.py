"""The interval of an amount: a bootstrap whose every draw is specified, so that anybody repeats it.

Integers only, from the first draw to the last (verifier/METHOD.md, "Interval").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date

from services.pricing.model.arithmetic import whole_median
from services.pricing.model.counterfactual import pool

ROUNDS, LOW, HIGH = 1000, 50, 949
_WORDS = 2**32
Cost = Callable[[date, date], int]


class Draws:
    """A stream of draws from a seed: SHA-256 in counter mode, four bytes a word, rejection instead of bias."""

    def __init__(self, plan_hash: str, days: int) -> None:
        self._words = _words(hashlib.sha256(f"recoup-savings/1/{plan_hash}/{days}".encode()).digest())

    def below(self, n: int) -> int:
        """A draw from 0 to n - 1."""
        limit = _WORDS - _WORDS % n
        while (word := next(self._words)) >= limit:
            pass
        return word % n


def _words(seed: bytes) -> Iterator[int]:
    counter = 0
    while True:
        block = hashlib.sha256(seed + counter.to_bytes(8, "big")).digest()
        yield from (int.from_bytes(block[at : at + 4], "big") for at in range(0, len(block), 4))
        counter += 1


def interval(
    draws: Draws, baseline_days: Sequence[date], window: Sequence[date], cost: Cost, spent: Mapping[date, int]
) -> tuple[int, int]:
    """The bounds of the 90 % interval, times 10^12.

    `cost(t, d)` is what a baseline day would have cost on a window day, `spent` what each window day did cost.
    """
    weekdays = sorted({day.weekday(): day for day in window}.items())
    pools = {weekday: pool(baseline_days, day) for weekday, day in weekdays}
    residuals = {d: _residuals(baseline_days, d, cost) for d in window}
    costs = {d: [cost(t, d) for t in pools[d.weekday()]] for d in window}
    spent_in_all = sum(spent[d] for d in window)
    totals = []
    for _ in range(ROUNDS):
        drawn = {weekday: [draws.below(len(members)) for _ in members] for weekday, members in pools.items()}
        total = -spent_in_all
        for d in window:
            values = costs[d]
            total += whole_median([values[place] for place in drawn[d.weekday()]])
            total += residuals[d][draws.below(len(baseline_days))]
        totals.append(total)
    totals.sort()
    return totals[LOW], totals[HIGH]


def _residuals(baseline_days: Sequence[date], d: date, cost: Cost) -> list[int]:
    """For each baseline day, how far it lies from the median of its own weekday, at the prices of `d`.

    Centred on their mean: what medians leave over on one side would move the interval away from the amount itself.
    """
    medians = {t.weekday(): whole_median([cost(u, d) for u in pool(baseline_days, t)]) for t in baseline_days}
    apart = [cost(t, d) - medians[t.weekday()] for t in baseline_days]
    mean = sum(apart) // len(apart)
    return [each - mean for each in apart]
