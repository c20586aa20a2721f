"""Reads the files of one delivery as one bill. Pure but for reading the files, and blocking: it runs in a thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from services.pricing.model.completeness import Manifest, complete_days, complete_through
from services.pricing.model.daily import Account, DailyCost, DailyCosts
from services.pricing.model.focus import BillLimits, FocusRow, read_bill
from services.pricing.model.refusal import BillRefused, refusing_unforeseen

# So many daily costs are written in one short transaction.
PIECE_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file of the bill: its name at the provider, and where its bytes lie here."""

    name: str
    path: Path


class BillReading:
    """The sums of one delivery, piece by piece; `costs.facts` are whole once all of it was read."""

    def __init__(
        self, files: Sequence[FetchedFile], *, gzipped: bool, billing_period: date, limits: BillLimits
    ) -> None:
        self._files, self._gzipped, self._limits = files, gzipped, limits
        self._at = ""
        self.costs = DailyCosts(billing_period=billing_period, max_open=PIECE_ROWS)
        self._pieces = self.costs.sum(self._rows())

    def next_piece(self) -> list[DailyCost]:
        """The next daily costs; none at the end. Raises BillRefused, which names the file."""
        try:
            with refusing_unforeseen("the bill"):
                return next(self._pieces, [])
        except BillRefused as refused:
            told = f"{self._at}: {refused.message}"
            raise BillRefused(refused.rule, told, refused.way_out, row=refused.row, column=refused.column) from refused

    def _rows(self) -> Iterator[FocusRow]:
        for file in self._files:
            self._at = file.name
            with file.path.open("rb") as stream:
                yield from read_bill(stream, gzipped=self._gzipped, limits=self._limits)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The days that a delivery covers completely, by account; a delivery covers days of its own period only."""

    days: tuple[tuple[Account, date], ...]

    @property
    def complete_through(self) -> date | None:
        """The last day of the unbroken run that begins with the first day that any account is complete on."""
        return complete_through({day for _, day in self.days})


def coverage_of(manifest: Manifest, usage_days: set[tuple[Account, date]], settle: timedelta) -> Coverage:
    """What a delivery covers. A late charge of an earlier month doesn't make it cover that month's day."""
    own = {(account, day) for account, day in usage_days if day.replace(day=1) == manifest.billing_period}
    complete = complete_days(manifest, {day for _, day in own}, settle)
    return Coverage(tuple(sorted((account, day) for account, day in own if day in complete)))
