"""What EC2 refuses and delays and moto does not: addresses in use, the modification rate, pending snapshots.

State is the proxy's own memory, keyed by (account, region, id). Harsher than EC2 in one point, on purpose:
a volume deleted while its snapshot is pending leaves that snapshot in `error`, so not waiting shows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from recoup_local.cloud.proxy.answers import error_answer
from recoup_local.cloud.proxy.calls import Call
from recoup_local.cloud.proxy.ec2_answers import (
    PAGED,
    Listings,
    complete_volume,
    keep_latest_modifications,
)
from recoup_local.cloud.proxy.wire import Answer
from recoup_local.cloud.proxy.xmltree import Element, parse_answer, set_text, text_of, write_answer

MODIFICATION_GAP = timedelta(hours=6)
Key = tuple[str, str, str]
# Asks moto directly, outside the recording: (action, parameters, account, region) -> root of the answer.
Ask = Callable[[str, dict[str, str], str, str], Awaitable[Element]]


@dataclass
class Delays:
    """How long things take; polls are describe answers (not the admin's) that still say so.

    A snapshot completes once it was described `snapshot_polls` times and `snapshot_seconds` of simulated
    time have passed since its start; a modification is `optimizing` for `modification_polls` answers.
    """

    snapshot_polls: int = 2
    snapshot_seconds: float = 0.0
    modification_polls: int = 1


@dataclass
class _PendingSnapshot:
    volume_id: str
    polls_left: int
    ready_at: datetime
    failed: bool = False


@dataclass
class _Modification:
    fields: dict[str, str]
    at: datetime
    polls_left: int


class Ec2Rules:
    """Preconditions before a call is forwarded, and corrections of its answer afterwards."""

    def __init__(self, delays: Delays, simulated_now: Callable[[], datetime], ask: Ask) -> None:
        self.delays = delays
        self._now = simulated_now
        self._ask = ask
        self._listings = Listings()
        self._pending: dict[Key, _PendingSnapshot] = {}
        self._modifications: dict[Key, _Modification] = {}

    async def before(self, call: Call, account: str, *, admin: bool) -> Answer | None:
        """A refusal or a remembered page, or None when the call is to be forwarded."""
        if refused := self._listings.problem(call) or self._listings.next_page(call, account):
            return refused
        if call.dry_run:
            return None
        match call.action:
            case "ReleaseAddress":
                return await self._refuse_address_in_use(call, account)
            case "ModifyVolume":
                return await self._refuse_modification(call, account)
            case "CreateVolume":
                return self._refuse_pending_source(call, account)
            case "CreateTags" if not admin:
                if any(key.endswith(".Key") and value.startswith("aws:") for key, value in call.params.items()):
                    message = "Tag keys starting with 'aws:' are reserved for internal use"
                    return error_answer(call, 400, "InvalidParameterValue", message)
        return None

    def forwarded(self, call: Call) -> Call:
        """The call as moto gets it: without paging and, for snapshots, without a filter by status."""
        if call.action not in PAGED:
            return call
        params = {key: value for key, value in call.params.items() if key not in ("MaxResults", "NextToken")}
        if call.action == "DescribeSnapshots":
            for key in [key for key, value in params.items() if value == "status" and key.endswith(".Name")]:
                prefix = key.removesuffix("Name")
                params = {name: value for name, value in params.items() if not name.startswith(prefix)}
        return replace(call, params=params)

    def after(self, call: Call, account: str, answer: Answer, *, admin: bool) -> Answer:
        """The answer that EC2 would have given where moto gave this successful one."""
        match call.action:
            case "DeleteVolume":
                self._fail_snapshots_of(call.params.get("VolumeId", ""), account, call.region)
                return answer
            case "CreateSnapshot" if not admin:
                return self._start_snapshot(call, account, answer)
            case "ModifyVolume":
                return self._start_modification(call, account, answer)
            case action if action not in PAGED:
                return answer
        root, namespace = parse_answer(answer)
        container = root.find(PAGED[call.action][0])
        if container is not None:
            self._correct(call, account, container, admin=admin)
        return self._listings.first_page(call, account, answer, root, namespace)

    def _correct(self, call: Call, account: str, container: Element, *, admin: bool) -> None:
        if call.action == "DescribeVolumes":
            for item in container.findall("item"):
                complete_volume(item)
        elif call.action == "DescribeSnapshots":
            self._correct_snapshots(call, account, container, admin=admin)
        elif call.action == "DescribeVolumesModifications":
            keep_latest_modifications(container)
            for item in container.findall("item"):
                self._correct_modification(item, (account, call.region, text_of(item, "volumeId")))

    async def _refuse_address_in_use(self, call: Call, account: str) -> Answer | None:
        ids = {"AllocationId": "AllocationId.1", "PublicIp": "PublicIp.1"}
        params = {listed: call.params[name] for name, listed in ids.items() if name in call.params}
        root = await self._ask("DescribeAddresses", params, account, call.region)
        for item in root.findall("./addressesSet/item"):
            if text_of(item, "associationId") or text_of(item, "instanceId"):
                message = f"Address {text_of(item, 'publicIp')} is in use."
                return error_answer(call, 400, "InvalidIPAddress.InUse", message)
        return None

    async def _refuse_modification(self, call: Call, account: str) -> Answer | None:
        volume_id = call.params.get("VolumeId", "")
        key = (account, call.region, volume_id)
        earlier = self._modifications.get(key)
        if earlier and earlier.at <= self._now() < earlier.at + MODIFICATION_GAP:
            message = "You've reached the maximum modification rate per volume limit. "
            message += "Wait at least 6 hours between modifications per EBS volume."
            return error_answer(call, 400, "VolumeModificationRateExceeded", message)
        root = await self._ask("DescribeVolumes", {"VolumeId.1": volume_id}, account, call.region)
        item = root.find("./volumeSet/item")
        if item is None:
            return None
        complete_volume(item)
        fields = {f"original{name}": text_of(item, path) for name, path in _MODIFIED.items()}
        # Stays provisional until the answer says that the modification was accepted.
        self._modifications[key] = _Modification(fields, datetime.min.replace(tzinfo=self._now().tzinfo), 0)
        return None

    def _refuse_pending_source(self, call: Call, account: str) -> Answer | None:
        key = (account, call.region, call.params.get("SnapshotId", ""))
        if key in self._pending:
            message = f"Snapshot is in invalid state - pending: {key[2]}"
            return error_answer(call, 400, "IncorrectState", message)
        return None

    def _start_snapshot(self, call: Call, account: str, answer: Answer) -> Answer:
        root, namespace = parse_answer(answer)
        key = (account, call.region, text_of(root, "snapshotId"))
        ready_at = self._now() + timedelta(seconds=self.delays.snapshot_seconds)
        self._pending[key] = _PendingSnapshot(text_of(root, "volumeId"), self.delays.snapshot_polls, ready_at)
        set_text(root, "status", "pending")
        set_text(root, "progress", "")
        return write_answer(answer, root, namespace)

    def _fail_snapshots_of(self, volume_id: str, account: str, region: str) -> None:
        for key, pending in self._pending.items():
            if key[:2] == (account, region) and pending.volume_id == volume_id:
                pending.failed = True

    def _correct_snapshots(self, call: Call, account: str, container: Element, *, admin: bool) -> None:
        wanted = _status_filter(call)
        for item in container.findall("item"):
            key = (account, call.region, text_of(item, "snapshotId"))
            state = self._poll_snapshot(key, counts=not admin)
            set_text(item, "status", state)
            set_text(item, "progress", "100%" if state == "completed" else "0%")
            if wanted and state not in wanted:
                container.remove(item)

    def _poll_snapshot(self, key: Key, *, counts: bool) -> str:
        pending = self._pending.get(key)
        if pending is None:
            return "completed"
        if pending.failed:
            return "error"
        if pending.polls_left <= 0 and self._now() >= pending.ready_at:
            del self._pending[key]
            return "completed"
        pending.polls_left -= int(counts)
        return "pending"

    def _start_modification(self, call: Call, account: str, answer: Answer) -> Answer:
        root, namespace = parse_answer(answer)
        item = root.find("volumeModification")
        found = self._modifications.get((account, call.region, call.params.get("VolumeId", "")))
        if item is None or found is None:
            return answer
        found.at, found.polls_left = self._now(), self.delays.modification_polls
        found.fields |= _targets(call, found.fields)
        self._describe_modification(item, found, "modifying", 0)
        return write_answer(answer, root, namespace)

    def _correct_modification(self, item: Element, key: Key) -> None:
        found = self._modifications.get(key)
        if found is None:
            return
        if found.polls_left > 0:
            found.polls_left -= 1
            self._describe_modification(item, found, "optimizing", 50)
        else:
            self._describe_modification(item, found, "completed", 100)

    @staticmethod
    def _describe_modification(item: Element, found: _Modification, state: str, progress: int) -> None:
        set_text(item, "modificationState", state)
        set_text(item, "progress", str(progress))
        for name, value in found.fields.items():
            if value:
                set_text(item, name, value)
        end = item.find("endTime")
        if state != "completed" and end is not None:
            item.remove(end)


_MODIFIED = {"Size": "size", "VolumeType": "volumeType", "Iops": "iops", "Throughput": "throughput"}


def _targets(call: Call, originals: dict[str, str]) -> dict[str, str]:
    """The target fields; what isn't asked for stays, except that a new type brings its own defaults."""
    targets = {f"target{name}": call.params.get(name) or originals[f"original{name}"] for name in _MODIFIED}
    if targets["targetVolumeType"] != originals["originalVolumeType"]:
        volume = Element("item")
        for name, path in _MODIFIED.items():
            value = targets[f"target{name}"] if name in ("Size", "VolumeType") else call.params.get(name, "")
            set_text(volume, path, value)
        complete_volume(volume)
        targets = {f"target{name}": text_of(volume, path) for name, path in _MODIFIED.items()}
    return targets


def _status_filter(call: Call) -> set[str]:
    """The values of a DescribeSnapshots filter by status, or nothing."""
    for key, value in call.params.items():
        if value == "status" and key.startswith("Filter.") and key.endswith(".Name"):
            prefix = key.removesuffix("Name") + "Value."
            return {wanted for name, wanted in call.params.items() if name.startswith(prefix)}
    return set()
