"""Which days a bill covers: an absent row is not $0, so that holes and fresh days don't count as complete."""

from datetime import UTC, date, datetime, timedelta

from services.pricing.model.completeness import Manifest, complete_days, complete_through

SETTLE = timedelta(hours=24)


def day(number: int) -> date:
    return date(2024, 9, number)


def manifest(created_at: datetime, *, is_closed: bool = False) -> Manifest:
    return Manifest(day(1), "execution", created_at, is_closed, ("s3://bucket/file.csv.gz",))


def test_a_day_settles_before_it_is_complete() -> None:
    used = [day(number) for number in range(1, 11)]
    assert max(complete_days(manifest(datetime(2024, 9, 10, 23, 59, tzinfo=UTC)), used, SETTLE)) == day(8)
    assert max(complete_days(manifest(datetime(2024, 9, 11, 0, 0, tzinfo=UTC)), used, SETTLE)) == day(9)
    assert max(complete_days(manifest(datetime(2024, 9, 10, 23, 59, tzinfo=UTC)), used, timedelta())) == day(9)


def test_a_closed_period_is_complete_to_its_end() -> None:
    used = [day(number) for number in range(1, 31)]
    rendered = datetime(2024, 9, 30, 12, tzinfo=UTC)
    assert complete_days(manifest(rendered, is_closed=True), used, SETTLE) == frozenset(used)
    assert max(complete_days(manifest(rendered), used, SETTLE)) == day(28)


def test_a_day_without_any_usage_of_the_account_is_a_hole() -> None:
    used = [day(number) for number in range(1, 31) if number != 12]
    complete = complete_days(manifest(datetime(2024, 10, 5, tzinfo=UTC), is_closed=True), used, SETTLE)
    assert day(12) not in complete
    assert complete_through(complete) == day(11)


def test_without_usage_nothing_is_complete() -> None:
    assert complete_days(manifest(datetime(2024, 10, 5, tzinfo=UTC), is_closed=True), [], SETTLE) == frozenset()
    assert complete_through([]) is None


def test_complete_through_crosses_months_and_leap_days() -> None:
    assert complete_through([date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]) == date(2024, 3, 1)
