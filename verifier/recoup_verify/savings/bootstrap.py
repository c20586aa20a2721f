"""The bootstrap interval of METHOD.md: whole numbers from a stream of SHA-256, so that everybody draws the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from hashlib import sha256
from operator import mod
from struct import unpack
from typing import NamedTuple

from recoup_verify.savings.method import Costs, Evidence, by_day, pool

_SCALE = 10**12
_ROUNDS, _LOW, _HIGH = 1_000, 50, 949
_WORDS, _BLOCKS = 2**32, 256
# Below it a word favours no number of a few dozen, whatever their count: no more has to be looked at.
_SURELY_FAIR = _WORDS - 2**10


class Interval(NamedTuple):
    """The 90 % interval of the economic amount."""

    low: Decimal
    high: Decimal


class Draws:
    """Draws without bias from the stream of a seed."""

    def __init__(self, plan_hash: str, days: int) -> None:
        self._seed = sha256(f"recoup-savings/1/{plan_hash}/{days}".encode()).digest()
        self._words, self._place, self._blocks = tuple[int, ...](), 0, 0

    def below(self, sizes: Sequence[int]) -> list[int]:
        """The next draws, one from 0 to n - 1 for each n of the sizes, which are small."""
        words = self._words[self._place : self._place + len(sizes)]
        if len(words) < len(sizes) or max(words) >= _SURELY_FAIR:
            return [self._one_below(n) for n in sizes]
        self._place += len(sizes)
        return list(map(mod, words, sizes))

    def _one_below(self, n: int) -> int:
        """Words that would favour some numbers are left out."""
        while True:
            if self._place == len(self._words):
                self._read()
            word, self._place = self._words[self._place], self._place + 1
            if word < _WORDS - _WORDS % n:
                return word % n

    def _read(self) -> None:
        """The stream's next blocks: SHA-256 of the seed and a counter, each eight words."""
        numbers = range(self._blocks, self._blocks + _BLOCKS)
        blocks = b"".join([sha256(self._seed + number.to_bytes(8, "big")).digest() for number in numbers])
        self._words, self._place, self._blocks = unpack(f">{8 * _BLOCKS}I", blocks), 0, numbers.stop


def interval(evidence: Evidence, costs: Costs, plan_hash: str) -> Interval:
    """Draw the medians and the residuals anew, 1,000 times."""
    resampling = _Resampling(evidence, costs)
    draws = Draws(plan_hash, len(evidence.window))
    totals = sorted(resampling.total(draws) for _ in range(_ROUNDS))
    return Interval(Decimal(totals[_LOW]) / _SCALE, Decimal(totals[_HIGH]) / _SCALE)


class _Resampling:
    """Tables of whole numbers: by window day the costs of its pool, the residuals, and where its draws stand."""

    def __init__(self, evidence: Evidence, costs: Costs) -> None:
        days, window = evidence.baseline_days, evidence.window
        pools = {w: pool(days, w) for w in sorted({d.weekday() for d in window})}
        self._sizes, drawn = list[int](), dict[int, slice]()
        for w, members in pools.items():
            drawn[w] = slice(len(self._sizes), len(self._sizes) + len(members))
            self._sizes += [len(members)] * len(members)
        self._medians = len(self._sizes)
        self._sizes += [len(days)] * len(window)
        self._days = list[tuple[slice, list[int], list[int]]]()
        for d in window:
            line = {t: _whole(costs.of(t, d, "effective")) for t in days}
            self._days.append((drawn[d.weekday()], [line[t] for t in pools[d.weekday()]], _residuals(line)))
        spent = [by_day(rows, "effective") for rows in (evidence.rows, evidence.leakage)]
        self._spent = sum(_whole(kind.get(d, Decimal(0))) for kind in spent for d in window)

    def total(self, draws: Draws) -> int:
        """One round."""
        numbers, found = draws.below(self._sizes), -self._spent
        for (drawn, costs, residuals), place in zip(self._days, numbers[self._medians :], strict=True):
            found += _median([costs[n] for n in numbers[drawn]]) + residuals[place]
        return found


def _residuals(costs: Mapping[date, int]) -> list[int]:
    """Of each baseline day, from what each would have cost on one window day."""
    days = list(costs)
    medians = {w: _median([costs[t] for t in pool(days, w)]) for w in {day.weekday() for day in days}}
    apart = [cost - medians[day.weekday()] for day, cost in costs.items()]
    mean = sum(apart) // len(apart)
    return [each - mean for each in apart]


def _whole(value: Decimal) -> int:
    return int((value * _SCALE).to_integral_value(ROUND_HALF_EVEN))


def _median(values: list[int]) -> int:
    values.sort()
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) // 2
