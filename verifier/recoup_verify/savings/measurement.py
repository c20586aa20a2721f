"""Reads what a measurement rests on out of its documents, computes its result anew, and compares: field by field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from recoup_verify.documents import Disproved
from recoup_verify.savings.decision import Circumstances, result_of
from recoup_verify.savings.documents import complete_days, window_days
from recoup_verify.savings.method import Evidence, arithmetic, total
from recoup_verify.savings.rows import MAX_LEAKING, MAX_ROWS, Row, days_of, decimal_of, prices_of, rows_of

_LATE = timedelta(days=45)


def check_measurement(baseline: Mapping[str, Any], measurement: Mapping[str, Any], decided: date) -> None:
    """Raise Disproved, CannotTell unless the result follows from the rows by METHOD.md, on the day of the decision."""
    evidence, given = _evidence(baseline, measurement), _circumstances(measurement, decided)
    said = measurement["result"]
    try:
        with arithmetic():
            _check_prices(evidence)
        computed = result_of(evidence, given)
    except ArithmeticError:
        raise Disproved("measurement: its numbers are too large for the method") from None
    for name in ("daily", "economic", "cash", "list", "cv_rmse", "model", "interval_low", "interval_high", "decision"):
        if said[name] != computed[name]:
            raise Disproved(f"measurement: its {name} {_difference(said[name], computed[name])}")


def _difference(said: Any, computed: Any) -> str:
    if not isinstance(said, list):
        return f"is {said[:80]!r}, but its rows give {computed!r}"
    if len(said) != len(computed):
        return f"has {len(said)} days, but its rows give {len(computed)}"
    place = next(place for place, day in enumerate(said) if day != computed[place])
    return f"isn't what its rows give for {computed[place]['day']}: {json.dumps(computed[place])}"


def _evidence(baseline: Mapping[str, Any], measurement: Mapping[str, Any]) -> Evidence:
    days, window = days_of(baseline["days"], "baseline: its days"), window_days(measurement)
    before = rows_of(baseline["rows"], "baseline", {*days})
    if not before:
        raise Disproved("baseline: it has no row")
    rows, leakage = rows_of(measurement["rows"], "measurement", {*window}), _leakage(measurement, {*window})
    if len(before) + len(rows) + len(leakage) > MAX_ROWS:
        raise Disproved(f"baseline and measurement have more than {MAX_ROWS} rows")
    return Evidence(days, before, window, rows, leakage, prices_of(measurement["prices"]))


def _leakage(measurement: Mapping[str, Any], window: set[date]) -> list[Row]:
    """The rows of what the action left behind: each resource once, and never the resource itself."""
    leaks = measurement["leakage"]
    if len(leaks) > MAX_LEAKING:
        raise Disproved(f"measurement: it nets more than {MAX_LEAKING} resources")
    resources = {frozenset(leak["resource"].items()) for leak in leaks}
    if len(resources) != len(leaks) or frozenset(measurement["resource"].items()) in resources:
        raise Disproved("measurement: its leakage has a resource twice, or the resource itself")
    return [row for number, leak in enumerate(leaks, 1) for row in rows_of(leak["rows"], f"leakage {number}", window)]


def _circumstances(measurement: Mapping[str, Any], decided: date) -> Circumstances:
    window, complete = window_days(measurement), complete_days(measurement)
    if not complete.issubset(window):
        raise Disproved("measurement: complete_days has days outside of its window")
    return Circumstances(
        plan_hash=measurement["plan_hash"],
        estimate=decimal_of(measurement["estimate"]["amount"], "measurement: estimate"),
        complete_days=complete,
        same_currency=all(batch["currency"] == measurement["currency"] for batch in measurement["batches"]),
        spanning=measurement["spanning"],
        expected_gone=measurement["expected_gone"],
        confirmed_gone=measurement["confirmed_gone"],
        is_late=measurement["result"]["decision"] != "PENDING" and decided >= window[-1] + _LATE,
    )


def _check_prices(evidence: Evidence) -> None:
    """What can be checked without the bill: that nothing is left out, and that no sum is less than its known part."""
    own, observed = total(evidence.baseline_rows), total(evidence.rows)
    if evidence.prices.keys() != own.keys():
        raise Disproved("measurement: its prices aren't those of the baseline's lines")
    for number, (line, price) in enumerate(evidence.prices.items(), 1):
        where = f"measurement: price {number}"
        used = observed[line].quantity if line in observed else 0
        if price.source == "BASELINE" and price.sums != own[line]:
            raise Disproved(f"{where}: its sums aren't those of the baseline's rows")
        if price.source == "BASELINE" and used > 0:
            raise Disproved(
                f"{where}: the resource was charged for it in the window, so its price isn't the baseline's"
            )
        if price.source == "REPORTING" and (price.sums.quantity <= 0 or price.sums.quantity < used):
            raise Disproved(f"{where}: its quantity is less than the resource's own rows have")
