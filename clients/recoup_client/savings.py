"""Commands from a finding to a receipt: bills, actions, receipts, the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from recoup_client.rest import at
from recoup_client.session import Command, Group, Session


def _short(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _money(amount: dict[str, Any] | None) -> str:
    return f"{amount['amount']} {amount['currency']}" if amount else "unknown"


@click.group(cls=Group)
def bill() -> None:
    """Say where the provider's bills lie, and see what was fetched."""


@bill.command("add")
@click.argument("connection_id")
@click.option("--account", required=True, help="the account that the bucket belongs to")
@click.option("--region", required=True, help="the bucket's region")
@click.option("--bucket", required=True, help="the bucket that the export is in")
@click.option("--prefix", required=True, help="the export's prefix in the bucket")
@click.pass_obj
def bill_add(session: Session, connection_id: str, account: str, region: str, bucket: str, prefix: str) -> None:
    """Have a FOCUS export fetched every day with a connection's credential."""
    body = {
        "connectionId": connection_id, "account": account, "region": region, "bucket": bucket, "prefix": prefix,
    }  # fmt: skip
    found = session.call("POST", "/billSources", body)
    session.show(found, [(found["billSource"]["billSourceId"], bucket)], "bill source", "bucket")


@bill.command("sources")
@click.pass_obj
def bill_sources(session: Session) -> None:
    """List bill sources."""
    found = session.all("/billSources", "billSources")
    rows = [(s["billSourceId"], f"s3://{s['bucket']}/{s['prefix']}", s["account"]) for s in found["billSources"]]
    session.show(found, rows, "bill source", "export", "account")


@bill.command("fetch")
@click.argument("bill_source_id")
@click.pass_obj
def bill_fetch(session: Session, bill_source_id: str) -> None:
    """Fetch a bill source now."""
    found = session.call("POST", at("/billSources/{}:import", bill_source_id), {})
    rows = [(found["billImport"]["billImportId"], _short(found["billImport"]["state"], "BILL_IMPORT_STATE_"))]
    session.show(found, rows, "import", "state")


@bill.command("disable")
@click.argument("bill_source_id")
@click.pass_obj
def bill_disable(session: Session, bill_source_id: str) -> None:
    """Stop fetching a bill source; another connection may take its place."""
    etag = session.call("GET", at("/billSources/{}", bill_source_id))["billSource"]["etag"]
    found = session.call("POST", at("/billSources/{}:disable", bill_source_id), {"etag": etag})
    rows = [(bill_source_id, _short(found["billSource"]["state"], "BILL_SOURCE_STATE_"))]
    session.show(found, rows, "bill source", "state")


@bill.command("imports")
@click.pass_obj
def bill_imports(session: Session) -> None:
    """List imports, newest first."""
    found = session.all("/billImports", "billImports")
    rows = [
        (
            i["billImportId"],
            i["createdAt"][:19],
            _short(i["state"], "BILL_IMPORT_STATE_"),
            ", ".join(f"{b['billingPeriod']} ({b['rows']} rows)" for b in i["batches"]),
            i["problem"],
        )
        for i in found["billImports"]
    ]
    session.show(found, rows, "import", "at", "state", "bills", "problem")


@click.group(cls=Group)
def action() -> None:
    """Request, approve and follow actions."""


_request_id = click.option(
    "--request-id", default=lambda: str(uuid4()), help="a UUID: the same one again has no further effect"
)


@action.command("request")
@click.argument("finding_id")
@_request_id
@click.pass_obj
def action_request(session: Session, finding_id: str, request_id: str) -> None:
    """Request the action of a finding: its plan is frozen and hashed."""
    _show(session, session.call("POST", "/actions", {"findingId": finding_id, "requestId": request_id}))


@action.command("show")
@click.argument("action_id")
@click.pass_obj
def action_show(session: Session, action_id: str) -> None:
    """Show an action with its plan, its steps and its checkpoints."""
    _show(session, session.call("GET", at("/actions/{}", action_id)))


@action.command("watch")
@click.argument("action_id")
@click.pass_obj
def action_watch(session: Session, action_id: str) -> None:
    """Follow an action until it is executed or over: a line each time that it changed."""
    for found in session.follow(at("/actions/{}:watch", action_id)):
        made = found["action"]
        session.say(found, " ".join(filter(None, (_short(made["state"], "ACTION_STATE_"), made["problem"]))) + "\n")


@action.command("approve")
@click.argument("action_id")
@click.argument("plan_hash")
@click.option("--comment", default="")
@_request_id
@click.pass_obj
def action_approve(session: Session, action_id: str, plan_hash: str, comment: str, request_id: str) -> None:
    """Approve the plan whose hash you were shown."""
    body = {"planHash": plan_hash, "comment": comment, "requestId": request_id}
    _show(session, session.call("POST", at("/actions/{}:approve", action_id), body))


@action.command("reject")
@click.argument("action_id")
@click.option("--comment", required=True, help="why")
@click.pass_obj
def action_reject(session: Session, action_id: str, comment: str) -> None:
    """Reject an action."""
    _show(session, session.call("POST", at("/actions/{}:reject", action_id), {"comment": comment}))


@action.command("cancel")
@click.argument("action_id")
@click.option("--comment", default="")
@click.pass_obj
def action_cancel(session: Session, action_id: str, comment: str) -> None:
    """Withdraw an action before anything irreversible is done."""
    _show(session, session.call("POST", at("/actions/{}:cancel", action_id), {"comment": comment}))


@action.command("list")
@click.pass_obj
def action_list(session: Session) -> None:
    """List actions, newest first."""
    found = session.all("/actions", "actions")
    rows = [
        (a["actionId"], _short(a["state"], "ACTION_STATE_"), a["resource"]["id"], _money(a["plan"]["estimate"]))
        for a in found["actions"]
    ]
    session.show(found, rows, "action", "state", "resource", "a month")


def _show(session: Session, found: dict[str, Any]) -> None:
    """An action as a person reads it: what, the hash, where it stands, what was done, what the bill said."""
    made = found["action"]
    rows = [
        ("action", made["actionId"]),
        ("what", made["plan"]["summary"]),
        ("taken back by", made["plan"]["rollback"]),
        ("estimate a month", _money(made["plan"]["estimate"])),
        ("plan hash", made["plan"]["planHash"]),
        ("state", _short(made["state"], "ACTION_STATE_")),
    ]
    if made["problem"]:
        rows.append(("problem", made["problem"]))
    rows += [(a["decision"].lower(), f"{a['actor']} {a['decidedAt'][:19]} {a['comment']}") for a in made["approvals"]]
    rows += [(s["name"], f"{_short(s['state'], 'STEP_STATE_')} {s['resultId']}") for s in made["steps"]]
    rows += [(f"after {c['days']} days", _checkpoint(c)) for c in made["checkpoints"]]
    session.show(found, rows, "", "")


def _checkpoint(found: dict[str, Any]) -> str:
    if found["state"] == "CHECKPOINT_STATE_WAITING":
        return f"waiting, next look {found['dueAt'][:10]}" if found.get("dueAt") else "waiting"
    state = "provisional" if found["provisional"] else "final"
    decision = _short(found["decision"], "DECISION_")
    return f"{decision}, {_money(found.get('economic'))}, {state}; receipt {found['receiptId']}"


@click.group(cls=Group)
def receipt() -> None:
    """List receipts, and fetch them for recoup-verify."""


@receipt.command("list")
@click.pass_obj
def receipt_list(session: Session) -> None:
    """List receipts, newest first."""
    found = session.all("/receipts", "receipts")
    rows = [
        (
            r["receiptId"],
            str(r["days"]),
            _short(r["decision"], "DECISION_"),
            _money(r.get("economic")),
            _standing(r),
        )
        for r in found["receipts"]
    ]
    session.show(found, rows, "receipt", "days", "decision", "economic", "")


def _standing(found: dict[str, Any]) -> str:
    if found["supersededBy"]:
        return f"superseded by {found['supersededBy']}"
    return "provisional" if found["provisional"] else "final"


@receipt.command("fetch")
@click.argument("receipt_id")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="the file for recoup-verify receipt")
@click.pass_obj
def receipt_fetch(session: Session, receipt_id: str, output: Path) -> None:
    """Fetch a receipt with everything that proves it offline."""
    found = session.call("GET", at("/receipts/{}", receipt_id))
    if found["state"] != "RECEIPT_STATE_FINAL":
        cosigned = f"{found['cosigned']} of {found['quorum']} witnesses have cosigned it"
        why = cosigned if found["quorum"] else "the log hasn't signed it yet"
        raise click.ClickException(f"the receipt is issued, but isn't final: {why}. Try again in a moment.")
    try:
        output.write_text(found["bundle"], "utf-8")
    except OSError as error:
        raise click.ClickException(f"{output} can't be written: {error.strerror}") from error
    session.show(found, [(receipt_id, str(output))], "receipt", "file")


@click.command(cls=Command)
@click.pass_obj
def ledger(session: Session) -> None:
    """Sum up what was verified, is waiting, or came back."""
    found = session.call("GET", "/ledger")
    counts = ("days", "verified", "partial", "waiting", "regressed", "inconclusive", "notRealized")
    rows = [
        (*(str(line[name]) for name in counts), *(_money(line[name]) for name in ("economic", "cash", "estimated")))
        for line in found["lines"]
    ]
    session.show(found, rows, *(*counts[:-1], "not realized"), "economic", "cash", "estimated")


COMMANDS: tuple[click.Command, ...] = (bill, action, receipt, ledger)
