"""Whether a baseline predicts itself: the last days are held out and predicted from the others.

A load that can't be predicted allows no statement about what it would have cost (verifier/METHOD.md, "Model check").
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from services.pricing.model.arithmetic import ZERO, median, plain
from services.pricing.model.baseline import Baseline
from services.pricing.model.counterfactual import Counterfactual, Measure, pool, prices_of

HOLDOUT_DAYS = 7
_STABLE, _VARIABLE = Decimal("0.05"), Decimal("0.25")
_PLACES_4 = Decimal("0.0001")


class Model(enum.StrEnum):
    """How well a baseline predicts itself."""

    STABLE = "STABLE"
    VARIABLE = "VARIABLE"
    UNFIT = "UNFIT"


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """CV(RMSE) on the holdout; None where it is infinite."""

    cv_rmse: Decimal | None

    @property
    def model(self) -> Model:
        """Judged before rounding."""
        if self.cv_rmse is None or self.cv_rmse >= _VARIABLE:
            return Model.UNFIT
        return Model.STABLE if self.cv_rmse < _STABLE else Model.VARIABLE

    @property
    def text(self) -> str:
        """As documents write it: 4 places, half-even; empty for infinite."""
        return "" if self.cv_rmse is None else plain(self.cv_rmse.quantize(_PLACES_4, ROUND_HALF_EVEN))


def check_model(baseline: Baseline) -> ModelCheck:
    """The check of a baseline at its own prices, within `exactly()`."""
    own = Counterfactual(baseline.days, baseline.rows, prices_of(baseline.rows, {}))
    training, holdout = baseline.days[:-HOLDOUT_DAYS], baseline.days[-HOLDOUT_DAYS:]
    observed = [own.cost(d, d, Measure.ECONOMIC) for d in holdout]
    predicted = [median([own.cost(t, d, Measure.ECONOMIC) for t in pool(training, d)]) for d in holdout]
    mean = sum(observed, ZERO) / len(observed)
    if mean <= 0:
        return ModelCheck(ZERO if not any(observed) and not any(predicted) else None)
    squares = [(seen - told) ** 2 for seen, told in zip(observed, predicted, strict=True)]
    return ModelCheck((sum(squares, ZERO) / len(squares)).sqrt() / mean)
