"""What a changed limit of credentials' age leaves: a week for what is newly refused, and no more for playing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scanner.model.rotation_rules import GRACE, RotationRules

DAY, NOW = timedelta(days=1), datetime(2026, 5, 1, tzinfo=UTC)
OLD, FRESH = NOW - 400 * DAY, NOW - 60 * DAY
ENFORCED = RotationRules(10, 90)


def said(rules: RotationRules, *steps: tuple[int, int]) -> RotationRules:
    """Rules after (hours from now, limit) each."""
    for hours, days in steps:
        rules = rules.changed(10 if days else 0, days, NOW + timedelta(hours=hours))
    return rules


def test_switched_off_and_on_again_it_holds_as_before() -> None:
    for steps in ([(0, 0), (1, 90)], [(0, 365), (1, 90)], [(0, 365), (1, 0), (2, 90)], [(0, 0), (1, 0), (2, 100)]):
        assert said(ENFORCED, *steps).refused_from(OLD) < NOW


def test_what_was_announced_stays_announced() -> None:
    begun = said(RotationRules(), (0, 90))
    assert begun.refused_from(OLD) == NOW + GRACE
    assert said(begun, (1, 0), (2, 90)).refused_from(OLD) == NOW + GRACE
    assert said(begun, (1, 30), (2, 90)).refused_from(OLD) == NOW + GRACE


def test_a_tighter_limit_puts_off_nothing_that_was_refused_before() -> None:
    tighter = said(ENFORCED, (0, 30))
    assert tighter.refused_from(OLD) == ENFORCED.refused_from(OLD)
    assert tighter.refused_from(FRESH) == NOW + GRACE
    assert said(ENFORCED, (0, 89), (1, 88), (2, 0), (3, 90)).refused_from(OLD) < NOW


def test_a_limit_that_was_off_for_a_week_leaves_a_week() -> None:
    away = said(ENFORCED, (0, 0), (7 * 24, 90))
    assert away.refused_from(OLD) == NOW + 2 * GRACE
    assert said(RotationRules(), (0, 90)).refused_from(OLD) == NOW + GRACE


def test_what_is_remembered_is_bounded() -> None:
    rules = said(ENFORCED, *((0, 3000 - step) for step in range(200)), *((1, 2000 + step) for step in range(200)))
    assert len(rules.limits) <= 50
    assert said(rules, (24 * 30, 90)).changed(10, 80, NOW + 60 * DAY).limits[1:] == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0, 30, 89, 90, 91, 365])), max_size=6))
def test_whatever_is_said_within_a_week_the_limit_said_again_gains_nothing(steps: list[tuple[int, int]]) -> None:
    after = said(ENFORCED, *sorted(steps, key=lambda step: step[0]), (21, 90))
    for given_at in (OLD, FRESH, NOW):
        refused, before = after.refused_from(given_at), ENFORCED.refused_from(given_at)
        assert refused is not None
        assert before is not None
        assert refused <= max(before, NOW + timedelta(hours=21))
