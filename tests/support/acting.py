"""Actions for tests: a fresh finding, requested and approved, and what the cloud saw of it."""

from __future__ import annotations

from typing import Any

from recoup_local.cloud import ProxyControl
from tests.support import mesh as support
from tests.support.mesh import TestMesh


class Acting:
    """Requests and approves actions on the estate of a told story, each on a resource of its own."""

    def __init__(self, made: TestMesh) -> None:
        self.made = made
        self.control = ProxyControl.of(made.mesh.cloud)
        self.finops, self.approver = made.rest("acme", "FinOps"), made.rest("acme", "Approver")
        self._scanned = False

    def finding(self, action_type: str) -> dict[str, Any]:
        """An actionable finding that nobody has requested anything on."""
        if not self._scanned:
            support.scan(self.made, self.finops)
            self._scanned = True
        requested = {action["findingId"] for action in self.finops.get("/actions", pageSize=500)["actions"]}
        return next(
            f
            for f in self.finops.get("/findings", pageSize=500)["findings"]
            if f["actionType"] == action_type
            and f["actionability"] == "ACTIONABILITY_ACTIONABLE"
            and f["findingId"] not in requested
        )

    def requested(self, action_type: str) -> dict[str, Any]:
        """A requested action on a fresh finding."""
        finding = self.finding(action_type)
        action: dict[str, Any] = self.finops.post("/actions", {"findingId": finding["findingId"]})["action"]
        return action

    def approve(self, action: dict[str, Any]) -> dict[str, Any]:
        """Approve a requested action by its hash."""
        body = {"planHash": action["plan"]["planHash"], "comment": "test"}
        approved: dict[str, Any] = self.approver.post(f"/actions/{action['actionId']}:approve", body)["action"]
        return approved

    def reached(self, action: dict[str, Any], *states: str, seconds: float = 90.0) -> dict[str, Any]:
        """The action once it is in one of the states."""

        def there() -> dict[str, Any] | None:
            answer = self.finops.call("GET", f"/actions/{action['actionId']}")
            if answer.status_code == 503:  # An API that was killed is on its way back.
                return None
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()["action"]
            return found if found["state"].removeprefix("ACTION_STATE_") in states else None

        return support.until(there, seconds)

    def changes(self, action: dict[str, Any], call: str) -> list[dict[str, Any]]:
        """What the cloud saw of one kind of change to the action's resource, by our sessions."""
        return [
            line
            for line in self.control.log()
            if line["action"] == call
            and line["principal"] == "session"
            and action["resource"]["id"] in line["params"].values()
        ]

    def cloud(self, action: dict[str, Any]) -> Any:
        """EC2 where the action's resource is, as the customer's own administrator uses it."""
        return self.made.clients.client("ec2", action["resource"]["account"], action["resource"]["region"])
