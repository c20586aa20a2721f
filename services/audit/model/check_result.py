"""How a self-check ended: what was checked, and the first faults. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime

import orjson

from services.audit.model.faults import Fault
from services.audit.model.progress import Progress, Scope
from services.audit.model.shards import split

_COUNTS = ("leaves", "organizations", "checkpoints", "erased", "rows", "epoch")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A finished check. `faults` are the first ones, by place; `fault_count` counts all of them."""

    scope: Scope
    started_at: datetime
    finished_at: datetime
    leaves: int
    organizations: int
    checkpoints: int
    erased: int
    rows: int
    epoch: int
    faults: Sequence[Fault]
    fault_count: int

    @property
    def sound(self) -> bool:
        """Whether everything that was checked is what it should be."""
        return not self.faults

    @classmethod
    def of(cls, progress: Progress, finished_at: datetime) -> CheckResult:
        """The result of a check that is done."""
        return cls(
            progress.scope,
            progress.started_at,
            finished_at,
            progress.leaves,
            progress.organizations,
            progress.checkpoints,
            progress.erased,
            progress.rows,
            progress.epoch,
            tuple(progress.faults.kept),
            progress.faults.count,
        )

    def lines(self) -> Iterator[str]:
        """The result for a person."""
        yield (
            f"{self.scope.lower()} self-check, {self.started_at:%Y-%m-%d %H:%M:%S} to {self.finished_at:%H:%M:%S} UTC: "
            f"{self.leaves} leaves of {self.organizations} organizations, {self.checkpoints} checkpoints, "
            f"{self.rows} rows"
        )
        if self.erased:
            yield f"{self.erased} payloads were erased: their leaves were checked, their projections can't be"
        for fault in self.faults:
            yield "BAD " + spoken(fault)
        if self.fault_count > len(self.faults):
            yield f"... and {self.fault_count - len(self.faults)} more"
        yield "the log is what it should be" if self.sound else "THE LOG WAS CHANGED"

    def dump(self) -> str:
        """The result as JSON."""
        content = {name: getattr(self, name) for name in (*_COUNTS, "scope", "fault_count")}
        content |= {"started_at": self.started_at.isoformat(), "finished_at": self.finished_at.isoformat()}
        return orjson.dumps(content | {"faults": [astuple(each) for each in self.faults]}).decode()

    @classmethod
    def load(cls, text: str) -> CheckResult | None:
        """Read it back; None where it isn't one."""
        try:
            content = orjson.loads(text)
            return cls(
                Scope(content["scope"]),
                datetime.fromisoformat(content["started_at"]),
                datetime.fromisoformat(content["finished_at"]),
                int(content["leaves"]),
                int(content["organizations"]),
                int(content["checkpoints"]),
                int(content["erased"]),
                int(content["rows"]),
                int(content["epoch"]),
                tuple(Fault(*each) for each in content["faults"]),
                int(content["fault_count"]),
            )
        except (ValueError, KeyError, TypeError, orjson.JSONDecodeError):
            return None


def spoken(fault: Fault) -> str:
    """A fault as a person reads it: shard and index instead of the place."""
    shard, index = split(fault.place)
    return f"index {index}{f' of shard {shard}' if shard else ''}, {fault.field}: {fault.detail}"
