"""A plan whose session policy would be too long is divided: each part a session of its own, and none is more."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from services._mesh.errors import Denied
from services._mesh.grants import CredentialScope
from services._mesh.session_policies import MAX_POLICY_CHARACTERS, divide, policy_text
from services.actions.model.kinds import KINDS, READS, ActionKind, step_statements
from services.actions.model.plan import ResourceKey
from services.broker.model.purposes import session_policy

READ = {"actions": list(READS.actions), "resources": ["*"]}
VOLUMES = [f"arn:aws:ec2:us-east-1:111111111111:volume/vol-{n:017}" for n in range(100)]
SNAPSHOTS = "arn:aws:ec2:us-east-1::snapshot/*"


def scope(*statements: Any) -> CredentialScope:
    return CredentialScope(credential_id=UUID(int=1), purpose="act", account="1" * 12, statements=statements)


def named(part: CredentialScope) -> list[str]:
    return [arn for statement in part.statements for arn in statement["resources"] if "volume/" in arn]


def test_what_fits_stays_one() -> None:
    for given in (scope(), scope(READ), scope(READ, {"actions": ["ec2:DeleteVolume"], "resources": VOLUMES[:20]})):
        assert divide(given) == (given,)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_step_of_the_catalogue_is_one_session(kind: ActionKind) -> None:
    """An action's step is carried out with one; reading and probing may be divided."""
    resource = ResourceKey("aws", "aws-us-gov", "1" * 12, "us-gov-east-1", kind.resource_type, "eipalloc-" + "f" * 17)
    for step in kind.steps:
        statements = [
            {"actions": list(s.actions), "resources": list(s.resources)} for s in step_statements(kind, step, resource)
        ]
        given = scope(*statements)
        assert divide(given) == (given,)


@pytest.mark.parametrize(
    "change",
    [
        {"actions": ["ec2:DeleteVolume"], "resources": VOLUMES},
        {"actions": ["ec2:CreateSnapshot", "ec2:CreateTags"], "resources": [*VOLUMES, SNAPSHOTS]},
    ],
)
def test_many_resources_are_divided_and_each_part_is_one_that_the_broker_takes(change: dict[str, list[str]]) -> None:
    given = scope(READ, change)
    with pytest.raises(Denied, match="characters, and AWS takes 2048"):
        session_policy("act", given.statements)
    parts = divide(given)
    assert parts == divide(given)
    assert [arn for part in parts for arn in named(part)] == VOLUMES  # Each once, and nothing else.
    for part in parts:
        assert len(session_policy("act", part.statements)) <= MAX_POLICY_CHARACTERS
        assert part.statements[0] == READ
        assert all(statement["actions"] == change["actions"] for statement in part.statements[1:])
        others = [arn for s in part.statements[1:] for arn in s["resources"] if arn not in VOLUMES]
        assert others == [SNAPSHOTS] * len(others)
        assert bool(others) is (SNAPSHOTS in change["resources"])
        assert (part.credential_id, part.purpose, part.account) == (given.credential_id, "act", given.account)


def test_many_changes_are_packed_in_their_order() -> None:
    changes = [{"actions": ["ec2:DeleteVolume"], "resources": [arn]} for arn in VOLUMES]
    parts = divide(scope(READ, *changes))
    assert [arn for part in parts for arn in named(part)] == VOLUMES
    lengths = [len(policy_text(part.statements)) for part in parts]
    assert max(lengths) <= MAX_POLICY_CHARACTERS
    assert min(lengths[:-1]) > MAX_POLICY_CHARACTERS - len(policy_text([changes[0]]))


def test_many_reads_are_divided_by_action() -> None:
    reads = [f"ec2:DescribeSomethingOrOther{n:03}" for n in range(150)]
    parts = divide(scope({"actions": reads, "resources": ["*"]}))
    assert [action for part in parts for s in part.statements for action in s["actions"]] == reads
    assert all(len(policy_text(part.statements)) <= MAX_POLICY_CHARACTERS for part in parts)


def test_a_policy_of_exactly_the_longest_is_one_and_a_character_more_is_not() -> None:
    def long(characters: int) -> CredentialScope:
        short = scope({"actions": ["ec2:DeleteVolume"], "resources": ["a", "b"]})
        fill = characters - len(policy_text(short.statements))
        return scope({"actions": ["ec2:DeleteVolume"], "resources": ["a", "b" + "x" * fill]})

    assert len(divide(long(MAX_POLICY_CHARACTERS))) == 1
    with pytest.raises(Denied):
        divide(long(MAX_POLICY_CHARACTERS + 1))


@pytest.mark.parametrize(
    "statement",
    [
        # One call may need a volume and an instance at once, so no part may have only one of them.
        {"actions": ["ec2:AttachVolume"], "resources": [*VOLUMES, "arn:aws:ec2:us-east-1:111111111111:instance/i-1"]},
        {"actions": ["s3:GetObject"], "resources": ["arn:aws:s3:::bucket/" + "x" * MAX_POLICY_CHARACTERS]},
        {"actions": ["ec2:DeleteVolume"], "resources": [arn + "/*" for arn in VOLUMES]},
    ],
)
def test_what_one_call_may_need_is_never_divided(statement: dict[str, list[str]]) -> None:
    with pytest.raises(Denied, match=r"can't be divided: one call may need all of it. Plan fewer resources."):
        divide(scope(READ, statement))
