"""The steps of the story, each through the REST gateway as the person who would do it.

It decides nothing about savings: what it shows is what the services answered.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.estate.plan import build_plan
from recoup_local.cloud.estate.roles import BaseUser, create_base_user, install_roles
from recoup_local.cloud.estate.seeder import Estate
from recoup_local.cloud.launch import ACCOUNTS, DENIED_REGION, REGIONS
from recoup_local.demo.rest import Refused, Somebody
from recoup_local.demo.showing import change_one_byte, money, recoup_verify, widest_trace
from recoup_local.issuer import organization_id
from recoup_local.otlp import tree
from recoup_local.supervisor import LocalMesh

FIRST_SCAN_DAY = -35
SCAN_DAYS = (-35, -28, -21, -14, -11, -8, -4, 0)
POLL_SECONDS = 0.15
WAIT_SECONDS = 120.0
_OVER = {"SCAN_STATE_COMPLETE", "SCAN_STATE_PARTIAL", "SCAN_STATE_FAILED"}


class StoryBroken(Exception):
    """Something in the story didn't happen as it must."""


@dataclass
class Story:
    """What was done, for out/demo/story.json: ids, counts, money as decimal strings, seconds a step."""

    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The story as JSON."""
        return {"version": 1, "profile": "local", "timings_seconds": self.seconds, **self.facts}


class Teller:
    """Tells the story on a running mesh."""

    def __init__(self, mesh: LocalMesh, console: Console, scale: int = 1) -> None:
        self.mesh, self.console, self.story = mesh, console, Story()
        self._day0 = datetime.now(UTC).replace(hour=9, minute=0, second=0, microsecond=0)
        self._clients = AwsClients.of(mesh.cloud)
        self.estate = Estate(self._clients, build_plan(scale=scale))
        self._base: BaseUser | None = None
        self._connection_id = ""
        self.proof = b""
        self._people: list[Somebody] = []

    def person(self, organization: str, role: str) -> Somebody:
        """Sign somebody in."""
        made = Somebody(
            self.mesh.gateway_url,
            self.mesh.installation.ca.cert_file,
            self.mesh.token(organization, role),
            str(organization_id(organization)),
            f"{role} of {organization}",
        )
        self._people.append(made)
        return made

    async def tell(self) -> Story:
        """The whole story."""
        steps = (
            ("history", self._history),
            ("connect", self._connect),
            ("scans", self._scans),
            ("findings", self._findings),
            ("evidence", self._evidence),
            ("isolation", self._isolation),
            ("trace", self._trace),
        )
        try:
            for name, step in steps:
                began = time.monotonic()
                await step()
                self.story.seconds[name] = round(time.monotonic() - began, 2)
        finally:
            await asyncio.gather(*(person.close() for person in self._people))
        return self.story

    def say(self, text: str) -> None:
        """A line of the story."""
        self.console.print(text)

    def _go_to(self, day: int, minutes: int = 0) -> None:
        self.mesh.clock.set_now(self._day0 + timedelta(days=day, minutes=minutes))

    async def _seed_through(self, day: int) -> int:
        """Let the estate change as it did, up to a day; the clock stands on each day as its changes happen."""
        steps = 0
        for each in self.estate.plan.days():
            if each <= day and each not in self.estate.done_days:
                self._go_to(each)
                steps += await asyncio.to_thread(self.estate.seed_day, each)
        self._go_to(day)
        return steps

    async def _history(self) -> None:
        """What was in the accounts before we came."""
        self.say("\n[bold]An estate with a past[/]: two AWS accounts, two regions, and one region that nobody may read")
        await asyncio.to_thread(self.estate.create_bill_bucket)
        self._base = await asyncio.to_thread(create_base_user, self._clients)
        steps = await self._seed_through(FIRST_SCAN_DAY)
        self.say(f"  {steps} changes up to day {FIRST_SCAN_DAY}")

    async def _connect(self) -> None:
        """Connect the scope, as a FinOps engineer of acme."""
        self.say(f"\n[bold]Day {FIRST_SCAN_DAY}[/]: a FinOps engineer of acme connects the accounts")
        assert self._base is not None
        finops = self.person("acme", "FinOps")
        accounts = [
            {
                "accountId": account,
                "scanRoleArn": f"arn:aws:iam::{account}:role/RecoupScan",
                "actRoleArn": f"arn:aws:iam::{account}:role/RecoupAct",
            }
            for account in ACCOUNTS
        ]
        made = await finops.post(
            "/connections",
            displayName="acme production",
            awsAccessKeyId=self._base.access_key_id,
            awsSecretAccessKey=self._base.secret_access_key,
            awsAccounts=accounts,
            regions=[*REGIONS, DENIED_REGION],
        )
        connection = made["connection"]
        self._connection_id = connection["connectionId"]
        self.say(f"  external id that the roles must demand: {connection['externalId']}")
        failed = await self._verify(finops)
        self.say(f"  without roles: {failed['state'].removeprefix('CONNECTION_STATE_')} - {failed['problem']}")
        if failed["state"] != "CONNECTION_STATE_FAILED":
            raise StoryBroken("a connection without roles was accepted")
        await asyncio.to_thread(install_roles, self._clients, self._base.arn, connection["externalId"])
        verified = await self._verify(finops)
        if verified["state"] != "CONNECTION_STATE_ACTIVE":
            raise StoryBroken(f"the connection wasn't accepted: {verified['problem']}")
        self._show_checks(verified["roleChecks"])
        self.story.facts["connection"] = {
            "connection_id": self._connection_id,
            "external_id": connection["externalId"],
            "role_checks": verified["roleChecks"],
        }

    async def _verify(self, person: Somebody) -> dict[str, Any]:
        await person.post(f"/connections/{self._connection_id}:verify")

        async def ended() -> dict[str, Any] | None:
            found = (await person.get(f"/connections/{self._connection_id}"))["connection"]
            return found if found["state"] != "CONNECTION_STATE_VERIFYING" else None

        return await self._until(ended, "the verification")

    def _show_checks(self, checks: list[dict[str, Any]]) -> None:
        table = Table("role", "no external id", "wrong one", "the right one", box=None, header_style="dim")
        for check in checks:
            table.add_row(
                check["roleArn"], check["withoutExternalId"], check["withWrongExternalId"], check["withExternalId"]
            )
        self.console.print(table)

    async def _scans(self) -> None:
        """A scan every few days, as the estate goes on changing."""
        finops = self.person("acme", "FinOps")
        found = []
        for day in SCAN_DAYS:
            await self._seed_through(day)
            # A little later each time, so that what was first seen on a threshold's day is past it on day 0.
            self._go_to(day, minutes=60 + day)
            self.say(f"\n[bold]Day {day}[/]: scan")
            found.append(await self._scan(finops, day))
        last = found[-1]
        self.story.facts["scans"] = [
            {
                "day": day,
                "scan_id": scan["scanId"],
                "state": scan["state"],
                "resources": scan["resourcesSeen"],
                "findings_open": scan["findingsOpen"],
                "api_calls": scan["apiCalls"],
            }
            for day, scan in zip(SCAN_DAYS, found, strict=True)
        ]
        missing = [unit for unit in last["coverage"] if unit["outcome"] != "COMPLETE"]
        for (account, region, outcome), count in sorted(
            Counter((u["account"], u["region"], f"{u['outcome']} ({u['errorCode']})") for u in missing).items()
        ):
            self.say(f"  [yellow]not read[/]: {account} {region}: {count} listings {outcome}")
        self.story.facts["not_read"] = missing

    async def _scan(self, person: Somebody, day: int) -> dict[str, Any]:
        """Start a scan and watch its real progress."""
        scan_id = (await person.post("/scans", connectionId=self._connection_id))["scan"]["scanId"]
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("listings", total=None)

            async def ended() -> dict[str, Any] | None:
                scan = (await person.get(f"/scans/{scan_id}"))["scan"]
                progress.update(task, total=scan["unitsTotal"], completed=scan["unitsDone"])
                return scan if scan["state"] in _OVER else None

            scan = await self._until(ended, "the scan")
        if scan["state"] == "SCAN_STATE_FAILED":
            raise StoryBroken(f"the scan of day {day} failed: {scan['problem']}")
        self.say(
            f"  {scan['state'].removeprefix('SCAN_STATE_').lower()}: {scan['unitsDone']} listings, "
            f"{scan['resourcesSeen']} resources, {scan['apiCalls']} calls, {scan['findingsOpen']} findings open"
        )
        return scan

    async def _findings(self) -> None:
        """What could be recovered, with money."""
        viewer = self.person("acme", "Viewer")
        found = await viewer.all("/findings", "findings")
        self.say(f"\n[bold]{len(found)} findings[/], the largest saving first")
        table = Table(box=None, header_style="dim")
        for column in ("detection", "resource", "name", "USD a month", "may be acted on"):
            table.add_column(column, no_wrap=True, justify="right" if column == "USD a month" else "left")
        for finding in found[:12]:
            table.add_row(
                finding["detectionId"],
                finding["resource"]["id"],
                finding["resourceName"],
                money(finding),
                finding["actionability"].removeprefix("ACTIONABILITY_").replace("_", " ").lower(),
            )
        self.console.print(table)
        totals: dict[str, Decimal] = {}
        for finding in found:
            amount = Decimal(finding["monthlySaving"]["amount"]) if finding.get("monthlySaving") else Decimal(0)
            totals[finding["detectionId"]] = totals.get(finding["detectionId"], Decimal(0)) + amount
        counts = Counter(finding["detectionId"] for finding in found)
        for detection, total in sorted(totals.items(), key=lambda item: -item[1]):
            self.say(f"  {detection:24} {counts[detection]:4} findings {total:10.2f} USD a month")
        self.story.facts["findings"] = {
            "count": len(found),
            "by_detection": dict(counts),
            "monthly_saving": {name: str(total) for name, total in totals.items()},
            "price_version": found[0]["priceVersion"] if found else "",
        }
        self._some_finding = found[0]["findingId"] if found else ""

    async def _evidence(self) -> None:
        """What an auditor sees: events, and the proof of one of them."""
        auditor = self.person("acme", "Auditor")

        async def complete() -> dict[str, Any] | None:
            """The events once the last scan's own has been relayed."""
            found = await auditor.all("/events", "events")
            ended = [event for event in found if event["action"] == "scanner.scan.complete"]
            return {"events": found} if len(ended) == len(SCAN_DAYS) else None

        events = (await self._until(complete, "the relay"))["events"]
        counts = Counter(event["action"] for event in events)
        self.say(f"\n[bold]{len(events)} events[/] in the log, each with its place in the organization's chain")
        for action, count in counts.most_common(8):
            self.say(f"  {action:32} {count:4}")
        proof = await auditor.get(f"/events/{events[0]['eventId']}/proof")
        size = proof["checkpoint"]["size"]
        self.proof = json.dumps(proof).encode()
        await self._verify_offline()
        self.story.facts["events"] = {"count": len(events), "by_action": dict(counts), "log_size": int(size)}
        self._some_event = events[0]["eventId"]

    async def _verify_offline(self) -> None:
        """The offline verifier on the proof, and on the proof with one byte changed."""
        key = self.mesh.installation.log.verifier_key
        with tempfile.TemporaryDirectory() as folder:
            for name, content in (("the proof", self.proof), ("one byte changed", change_one_byte(self.proof))):
                file = Path(folder) / "proof.json"
                await asyncio.to_thread(file.write_bytes, content)
                code, told = await asyncio.to_thread(recoup_verify, file, key)
                self.say(f"  recoup-verify, {name}: exit {code}")
                for line in told.splitlines():
                    self.console.print(f"    {line}", markup=False)
                if code != (0 if name == "the proof" else 1):
                    raise StoryBroken(f"recoup-verify answered {code} for {name}")

    async def _isolation(self) -> None:
        """Globex tries to read what is acme's, by id."""
        self.say("\n[bold]Globex[/] tries to read what is acme's")
        admin = self.person("globex", "Admin")
        scan_id = self.story.facts["scans"][-1]["scan_id"]
        results = {}
        for what, path in (
            ("connection", f"/connections/{self._connection_id}"),
            ("scan", f"/scans/{scan_id}"),
            ("finding", f"/findings/{self._some_finding}"),
            ("event", f"/events/{self._some_event}"),
        ):
            try:
                await admin.get(path)
            except Refused as refused:
                results[what] = refused.status
                self.say(f"  {what:12} {refused.status} {refused.reason}")
        self.story.facts["isolation"] = results
        if set(results.values()) != {404} or len(results) != 4:
            raise StoryBroken(f"globex saw something of acme's: {results}")

    async def _trace(self) -> None:
        """The trace of one scan, of received spans only."""
        await asyncio.sleep(0)
        spans = self.mesh.spans.all()
        chosen = widest_trace(spans)
        processes = sorted({span.process for span in chosen})
        self.say(f"\n[bold]One scan's trace[/]: {len(chosen)} spans over {len(processes)} processes")
        for depth, span in tree(chosen)[:18]:
            if not span.name.startswith("sql"):
                milliseconds = (span.end_ns - span.start_ns) / 1e6
                self.say(f"  {'  ' * depth}{span.name} [dim]{span.process} {milliseconds:.0f} ms[/]")
        self.story.facts["trace"] = {"spans": len(chosen), "processes": processes}

    async def _until(self, ended: Any, what: str) -> dict[str, Any]:
        """Ask until there is an answer."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            answer: dict[str, Any] | None = await ended()
            if answer is not None:
                return answer
            await asyncio.sleep(POLL_SECONDS)
        raise StoryBroken(f"{what} didn't end within {WAIT_SECONDS:.0f} s")
