"""The first chapter: an estate with a past is connected, read and billed, day by day, until day 0."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from recoup_local.cloud.estate.roles import install_roles
from recoup_local.cloud.estate.seeder import bill_bucket_name
from recoup_local.cloud.launch import ACCOUNTS, DENIED_REGION, PAYER_ACCOUNT, REGIONS
from recoup_local.demo.rest import Somebody
from recoup_local.demo.teller import StoryBroken, Teller

FIRST_DAY = -35
SCAN_DAYS = (-35, -28, -21, -14, -11, -8, -4, 0)
BILL_DAYS = frozenset(range(0, FIRST_DAY, -7))
_OVER = {"SCAN_STATE_COMPLETE", "SCAN_STATE_PARTIAL", "SCAN_STATE_FAILED"}


async def grow(teller: Teller) -> None:
    """What was in the accounts before we came."""
    teller.say("\n[bold]An estate with a past[/]: two AWS accounts, two regions, and one region that nobody may read")
    await asyncio.to_thread(teller.estate.create_bill_bucket)
    steps = await teller.seed_through(FIRST_DAY)
    teller.work_hours(FIRST_DAY)
    await asyncio.to_thread(teller.bills.observe)
    teller.say(f"  {steps} changes up to day {FIRST_DAY}")


async def connect(teller: Teller) -> None:
    """Connect the scope, as a FinOps engineer of acme: refused without roles, accepted with them."""
    teller.say(f"\n[bold]Day {FIRST_DAY}[/]: a FinOps engineer of acme connects the accounts")
    finops, base = teller.person("acme", "FinOps"), await teller.base_user()
    made = await finops.post(
        "/connections",
        displayName="acme production",
        awsAccessKeyId=base.access_key_id,
        awsSecretAccessKey=base.secret_access_key,
        awsAccounts=[
            {
                "accountId": account,
                "scanRoleArn": f"arn:aws:iam::{account}:role/RecoupScan",
                "actRoleArn": f"arn:aws:iam::{account}:role/RecoupAct",
            }
            for account in ACCOUNTS
        ],
        regions=[*REGIONS, DENIED_REGION],
    )
    connection = made["connection"]
    teller.connection_id = connection["connectionId"]
    teller.say(f"  external id that the roles must demand: {connection['externalId']}")
    failed = await _verify(teller, finops)
    if failed["state"] != "CONNECTION_STATE_FAILED":
        raise StoryBroken("a connection without roles was accepted")
    teller.say(f"  without roles: failed - {failed['problem']}")
    bucket = bill_bucket_name()
    await asyncio.to_thread(install_roles, teller.clients, base.arn, connection["externalId"], bill_bucket=bucket)
    verified = await _verify(teller, finops)
    if verified["state"] != "CONNECTION_STATE_ACTIVE":
        raise StoryBroken(f"the connection wasn't accepted: {verified['problem']}")
    _show_checks(teller, verified["roleChecks"])
    teller.story.facts["connection"] = {
        "connection_id": teller.connection_id,
        "external_id": connection["externalId"],
        "role_checks": verified["roleChecks"],
    }


async def _verify(teller: Teller, person: Somebody) -> dict[str, Any]:
    await person.post(f"/connections/{teller.connection_id}:verify")

    async def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = (await person.get(f"/connections/{teller.connection_id}"))["connection"]
        return found if found["state"] != "CONNECTION_STATE_VERIFYING" else None

    return await teller.until(ended, "the verification")


def _show_checks(teller: Teller, checks: list[dict[str, Any]]) -> None:
    table = Table("role", "no external id", "wrong one", "the right one", box=None, header_style="dim")
    for check in checks:
        table.add_row(
            check["roleArn"], check["withoutExternalId"], check["withWrongExternalId"], check["withExternalId"]
        )
    teller.console.print(table)


async def wait_for_the_bill(teller: Teller) -> None:
    """Say where the provider's export lies; the pricing worker fetches it with the connection's credential."""
    finops = teller.person("acme", "FinOps")
    made = await finops.post(
        "/billSources",
        connectionId=teller.connection_id,
        account=PAYER_ACCOUNT,
        region=REGIONS[0],
        bucket=bill_bucket_name(),
        prefix="billing/focus-daily",
    )
    teller.story.facts["bill_source"] = made["billSource"]["billSourceId"]
    teller.say(f"  the bill: s3://{bill_bucket_name()}/billing/focus-daily, looked at every day from now on")


async def live(teller: Teller) -> None:
    """Five weeks with a bill each, and a scan every few days.

    Days on which nothing happens are passed over; after each change there is one on which the provider sees it.
    """
    finops, found = teller.person("acme", "FinOps"), []
    changes = set(teller.estate.plan.days())
    lived = {*BILL_DAYS, *SCAN_DAYS, *changes, *(day + 1 for day in changes)}
    for day in range(FIRST_DAY, 1):
        if day > FIRST_DAY and day in lived:  # The first has begun already, and time must not go back for planned work.
            await teller.live_through(day, billed=day in BILL_DAYS)
        if day in SCAN_DAYS:
            teller.say(f"\n[bold]Day {day}[/]: scan")
            found.append(await _scan(teller, finops, day))
    teller.story.facts["scans"] = [
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
    missing = [unit for unit in found[-1]["coverage"] if unit["outcome"] != "COMPLETE"]
    for (account, region, outcome), count in sorted(
        Counter((u["account"], u["region"], f"{u['outcome']} ({u['errorCode']})") for u in missing).items()
    ):
        teller.say(f"  [yellow]not read[/]: {account} {region}: {count} listings {outcome}")
    teller.story.facts["not_read"] = missing
    await _tell_bills(teller)


async def _scan(teller: Teller, person: Somebody, day: int) -> dict[str, Any]:
    """Start a scan and watch its real progress."""
    scan_id = (await person.post("/scans", connectionId=teller.connection_id))["scan"]["scanId"]
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=teller.console, transient=True) as progress:
        task = progress.add_task("listings", total=None)

        async def ended() -> dict[str, Any] | None:
            scan: dict[str, Any] = (await person.get(f"/scans/{scan_id}"))["scan"]
            progress.update(task, total=scan["unitsTotal"], completed=scan["unitsDone"])
            return scan if scan["state"] in _OVER else None

        scan = await teller.until(ended, "the scan")
    if scan["state"] == "SCAN_STATE_FAILED":
        raise StoryBroken(f"the scan of day {day} failed: {scan['problem']}")
    teller.say(
        f"  {scan['state'].removeprefix('SCAN_STATE_').lower()}: {scan['unitsDone']} listings, "
        f"{scan['resourcesSeen']} resources, {scan['apiCalls']} calls, {scan['findingsOpen']} findings open"
    )
    return scan


async def _tell_bills(teller: Teller) -> None:
    """What was fetched so far: what baselines are frozen from."""
    found = await teller.person("acme", "Finance").all("/billImports", "billImports")
    batches = [batch for each in found for batch in each["batches"]]
    newest = max(batches, key=lambda batch: (batch["billingPeriod"], int(batch["rows"])))
    teller.say(
        f"\n[bold]{len(batches)} bills fetched[/] in {len(found)} looks, the newest with {newest['rows']} rows, "
        f"complete through {newest['completeThrough']}"
    )
    teller.story.facts["bills"] = {"imports": len(found), "batches": len(batches), "newest": newest}
