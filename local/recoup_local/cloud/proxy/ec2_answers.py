"""Makes moto's EC2 answers what EC2's would be: paging, pending snapshots, modifications, IOPS defaults.

moto ignores MaxResults on volumes and snapshots, completes snapshots and modifications at once, lists every
past modification, and leaves out the IOPS of gp2 and the defaults of gp3. All of that is filled in here.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import OrderedDict

from recoup_local.cloud.proxy.answers import error_answer
from recoup_local.cloud.proxy.calls import Call
from recoup_local.cloud.proxy.wire import Answer
from recoup_local.cloud.proxy.xmltree import Element, parse_answer, remove, set_text, text_of, write_answer

GP3_IOPS = 3000
GP3_THROUGHPUT_MIBPS = 125
MAX_REMEMBERED_LISTINGS = 64
# Action -> (element with the items, id inside an item, parameter of ids, least and greatest MaxResults).
PAGED: dict[str, tuple[str, str, str, int, int]] = {
    "DescribeVolumes": ("volumeSet", "volumeId", "VolumeId", 5, 1000),
    "DescribeSnapshots": ("snapshotSet", "snapshotId", "SnapshotId", 5, 1000),
    "DescribeVolumesModifications": ("volumeModificationSet", "volumeId", "VolumeId", 1, 500),
    "DescribeImages": ("imagesSet", "imageId", "ImageId", 1, 1000),
    "DescribeLaunchTemplates": ("launchTemplates", "launchTemplateId", "LaunchTemplateId", 1, 200),
}


def gp2_iops(size_gib: int) -> int:
    """gp2's baseline: 3 IOPS a GiB, at least 100, at most 16,000 (EBS user guide)."""
    return min(16000, max(100, 3 * size_gib))


def complete_volume(item: Element) -> None:
    """Adds what EC2 always says about gp2 and gp3 volumes and moto leaves out."""
    kind = text_of(item, "volumeType")
    if kind == "gp2":
        set_text(item, "iops", str(gp2_iops(int(text_of(item, "size")))))
        remove(item, "throughput")
    elif kind == "gp3":
        set_text(item, "iops", text_of(item, "iops") or str(GP3_IOPS))
        set_text(item, "throughput", text_of(item, "throughput") or str(GP3_THROUGHPUT_MIBPS))
    elif kind not in ("io1", "io2"):
        remove(item, "iops")
        remove(item, "throughput")


def keep_latest_modifications(container: Element) -> None:
    """EC2 describes only the most recent modification of each volume; moto describes all of them."""
    latest = {text_of(item, "volumeId"): item for item in container.findall("item")}
    for item in container.findall("item"):
        if latest[text_of(item, "volumeId")] is not item:
            container.remove(item)


class Listings:
    """Pages long listings. A listing is read from moto once and its later pages come from memory.

    Tokens are bound to account, region, action and filters, and can be used again (a client may retry a
    page whose answer it lost). After `MAX_REMEMBERED_LISTINGS` others a listing is forgotten.
    """

    def __init__(self) -> None:
        self._remembered: OrderedDict[str, tuple[Answer, list[Element], str]] = OrderedDict()
        self._next = 1

    def problem(self, call: Call) -> Answer | None:
        """The refusal of a wrong MaxResults or of MaxResults beside ids, or None."""
        if call.action not in PAGED or "MaxResults" not in call.params:
            return None
        _, _, ids, least, most = PAGED[call.action]
        value = call.params["MaxResults"]
        if not value.isdecimal() or not least <= int(value) <= most:
            message = f"Value ( {value} ) for parameter maxResults is invalid. Expecting a value between "
            return error_answer(call, 400, "InvalidParameterValue", message + f"{least} and {most}.")
        if call.values(ids):
            message = f"The parameter {ids[0].lower()}{ids[1:]} cannot be used with the parameter maxResults"
            return error_answer(call, 400, "InvalidParameterCombination", message)
        return None

    def next_page(self, call: Call, account: str) -> Answer | None:
        """The page that a NextToken asks for (or InvalidNextToken); None when there is no token."""
        token = call.params.get("NextToken")
        if call.action not in PAGED or not token:
            return None
        try:
            decoded = json.loads(base64.urlsafe_b64decode(token))
            listing, offset = str(decoded["l"]), int(decoded["o"])
            remembered = self._remembered[listing]
            if decoded["f"] != _fingerprint(call, account):
                raise KeyError(listing)
        except (ValueError, KeyError, TypeError):
            return error_answer(call, 400, "InvalidNextToken", "The pagination token is not valid.")
        return self._page(call, account, listing, remembered, offset)

    def first_page(self, call: Call, account: str, answer: Answer, root: Element, namespace: str) -> Answer:
        """The answer cut to MaxResults items with a NextToken, or whole if it needs no cut."""
        container = root.find(PAGED[call.action][0])
        items = container.findall("item") if container is not None else []
        if "MaxResults" not in call.params or len(items) <= int(call.params["MaxResults"]):
            return write_answer(answer, root, namespace)
        listing = str(self._next)
        self._next += 1
        remembered = (answer, items, namespace)
        self._remembered[listing] = remembered
        while len(self._remembered) > MAX_REMEMBERED_LISTINGS:
            self._remembered.popitem(last=False)
        return self._page(call, account, listing, remembered, 0)

    def _page(
        self,
        call: Call,
        account: str,
        listing: str,
        remembered: tuple[Answer, list[Element], str],
        offset: int,
    ) -> Answer:
        answer, items, namespace = remembered
        size = int(call.params.get("MaxResults", PAGED[call.action][4]))
        root, _ = parse_answer(answer)
        container = root.find(PAGED[call.action][0])
        if container is None:
            return answer
        container.clear()
        container.extend(items[offset : offset + size])
        if offset + size < len(items):
            token = {"l": listing, "o": offset + size, "f": _fingerprint(call, account)}
            set_text(root, "nextToken", base64.urlsafe_b64encode(json.dumps(token).encode()).decode())
        return write_answer(answer, root, namespace)


def _fingerprint(call: Call, account: str) -> str:
    """What a token is bound to: everything about the listing except its page."""
    params = sorted((k, v) for k, v in call.params.items() if k not in ("NextToken", "MaxResults"))
    text = json.dumps([account, call.region, call.action, params])
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]
