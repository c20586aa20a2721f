"""Runs the provider's billing: looks at the cloud, renders each day once, publishes the month's export.

Layout, as of AWS Data Exports that create a new delivery each time:
PREFIX/EXPORT/data/billing_period=YYYY-MM/EXECUTION/EXPORT-00001.csv.gz and
PREFIX/EXPORT/metadata/billing_period=YYYY-MM/EXPORT-Manifest.json, which names the current execution's files.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.bill import focus
from recoup_local.cloud.bill.meter import usage_of
from recoup_local.cloud.bill.observer import Changes, Observer
from recoup_local.cloud.launch import ACCOUNTS, PAYER_ACCOUNT, REGIONS

MAX_ROWS_PER_FILE = 10_000


class NotYetBilledError(ValueError):
    """The day isn't over, or the export's lag has not passed, or the meter wasn't running then."""


@dataclass(frozen=True)
class BillOptions:
    """`lag_days`: day d is published from d + lag on. `close_after_days`: days after month end until the
    month is final; until then it is published again together with the running month.
    """

    bucket: str
    prefix: str = "billing"
    export: str = "focus-daily"
    accounts: Sequence[str] = ACCOUNTS
    regions: Sequence[str] = REGIONS
    lag_days: int = 1
    close_after_days: int = 4
    discount: Decimal = Decimal(0)


@dataclass(frozen=True)
class WrittenBill:
    """One delivery of a billing period."""

    period: str
    manifest_key: str
    files: tuple[str, ...]
    rows: int
    closed: bool


class BillSimulator:
    """The billing of one organization. `now` gives simulated time; state lives in `state_dir`.

    `changes` (e.g. `ProxyControl.changes`) spares listing accounts and regions where nothing happened.
    """

    def __init__(
        self,
        clients: AwsClients,
        state_dir: Path,
        now: Callable[[], datetime],
        options: BillOptions,
        changes: Changes | None = None,
    ) -> None:
        self._now = now
        self._options = options
        self._days = state_dir / "bill-days"
        self._days.mkdir(parents=True, exist_ok=True)
        self._closed = state_dir / "bill-closed"
        self._closed.mkdir(exist_ok=True)
        state = state_dir / "bill-meter.json"
        self._observer = Observer(clients, options.accounts, options.regions, state, changes)
        self._s3: Any = clients.client("s3", PAYER_ACCOUNT)
        names = {PAYER_ACCOUNT: "Acme Payer"}
        names |= {account: f"Acme Workloads {account[:4]}" for account in options.accounts[1:]}
        self._payer = focus.Payer(PAYER_ACCOUNT, names, options.discount)

    def observe(self) -> None:
        """Looks at the cloud once. At least once a simulated day; the oftener, the exacter the ends."""
        self._observer.look(self._now())

    def run_day(self) -> list[WrittenBill]:
        """Looks, then publishes everything due: for a supervisor that calls it once a simulated day."""
        self.observe()
        last = self._now().date() - timedelta(days=self._options.lag_days)
        return self.write_bill(last) if last >= self._first_day() else []

    def write_bill(self, day: date) -> list[WrittenBill]:
        """Publishes the billing period of `day` with all days up to it (and the one before, until it closes).

        Raises NotYetBilledError when `day` isn't over for `lag_days`, or lies before the first look.
        """
        ready_at = datetime.combine(day + timedelta(days=self._options.lag_days), time(), UTC)
        last_look = self._observer.last_look
        if self._now() < ready_at:
            raise NotYetBilledError(f"{day} is published from {ready_at:%Y-%m-%d %H:%M} UTC on")
        if last_look is None or last_look < ready_at:
            self.observe()
        if day < self._first_day():
            raise NotYetBilledError(f"the meter has been running since {self._first_day()}")
        written = [self._publish_before(month, day) for month in self._open_months(day)]
        written.append(self._publish(day, closed=False))
        return written

    def _open_months(self, day: date) -> list[date]:
        """The last days of the months before a day's that aren't final yet, however long ago that was looked at."""
        found: list[date] = []
        last = focus.month_start(day) - timedelta(days=1)
        while last >= self._first_day() and not (self._closed / f"{last:%Y-%m}").exists():
            found.insert(0, last)
            last = focus.month_start(last) - timedelta(days=1)
        return found

    def _publish_before(self, last: date, day: date) -> WrittenBill:
        """Publish an earlier month again: `day` is day d at d + lag, and so many days after its end it is final."""
        closed = (day - last).days >= self._options.close_after_days
        written = self._publish(last, closed=closed)
        if closed:
            (self._closed / f"{last:%Y-%m}").touch()
        return written

    def _first_day(self) -> date:
        look = self._observer.first_look
        return look.date() if look else date.max

    def _publish(self, day: date, *, closed: bool) -> WrittenBill:
        lines: list[str] = []
        billed: dict[str, Decimal] = dict.fromkeys(self._options.accounts, Decimal(0))
        current = max(focus.month_start(day), self._first_day())
        while current <= day:
            text, totals = self._day(current)
            lines += text
            for account, total in totals.items():
                billed[account] += total
            current += timedelta(days=1)
        lines += focus.render(focus.month_rows(self._payer, day, billed)).splitlines(keepends=True)
        return self._deliver(day, lines, closed=closed)

    def _day(self, day: date) -> tuple[list[str], dict[str, Decimal]]:
        """A day's CSV lines and billed totals by account; rendered once, since a past day doesn't change."""
        kept = self._days / f"{day}.json"
        if kept.exists():
            document = json.loads(kept.read_text("utf-8"))
            return document["lines"], {key: Decimal(value) for key, value in document["billed"].items()}
        rows: list[focus.Row] = []
        billed: dict[str, Decimal] = {}
        for resource in self._observer.resources.values():
            for usage in usage_of(resource, day):
                row = focus.usage_row(self._payer, resource, usage, day)
                rows.append(row)
                billed[resource.account] = billed.get(resource.account, Decimal(0)) + Decimal(row["BilledCost"])
        lines = focus.render(rows).splitlines(keepends=True)
        totals = {key: str(value) for key, value in billed.items()}
        kept.write_text(json.dumps({"lines": lines, "billed": totals}), "utf-8")
        return lines, billed

    def _deliver(self, day: date, lines: list[str], *, closed: bool) -> WrittenBill:
        options, period, now = self._options, f"{day:%Y-%m}", self._now()
        execution = f"{now:%Y-%m-%dT%H:%M:%S}Z-{uuid4()}"
        base = f"{options.prefix}/{options.export}"
        files: list[str] = []
        for number, start in enumerate(range(0, len(lines), MAX_ROWS_PER_FILE), 1):
            text = focus.header() + "".join(lines[start : start + MAX_ROWS_PER_FILE])
            name = f"{options.export}-{number:05d}.csv.gz"
            key = f"{base}/data/billing_period={period}/{execution}/{name}"
            # Fast compression and no time stamp inside, so that equal rows give equal bytes.
            body = gzip.compress(text.encode("utf-8"), compresslevel=1, mtime=0)
            self._s3.put_object(Bucket=options.bucket, Key=key, Body=body, ContentType="application/x-gzip")
            files.append(key)
        manifest_key = f"{base}/metadata/billing_period={period}/{options.export}-Manifest.json"
        manifest = self._manifest(day, execution, files, closed=closed)
        body = json.dumps(manifest, indent=1).encode("utf-8")
        # Last, so that whoever reads the manifest finds every file that it names.
        self._s3.put_object(Bucket=options.bucket, Key=manifest_key, Body=body, ContentType="application/json")
        return WrittenBill(period, manifest_key, tuple(files), len(lines), closed)

    def _manifest(self, day: date, execution: str, files: list[str], *, closed: bool) -> dict[str, Any]:
        arn = f"arn:aws:bcm-data-exports:us-east-1:{PAYER_ACCOUNT}:export/{self._options.export}"
        return {
            "exportArn": arn,
            "exportName": self._options.export,
            "executionId": execution,
            "createdAt": self._now().isoformat(),
            "table": "FOCUS_1_0_AWS",
            "billingPeriod": {"start": f"{focus.month_start(day)}", "end": f"{focus.month_end(day)}"},
            "billingPeriodStatus": "CLOSED" if closed else "OPEN",
            "format": "TEXT_OR_CSV",
            "compression": "GZIP",
            "columns": list(focus.COLUMNS),
            "dataFiles": [f"s3://{self._options.bucket}/{key}" for key in files],
        }
