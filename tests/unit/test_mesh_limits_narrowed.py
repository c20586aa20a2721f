"""What several limits leave together is within every one of them, and never everything by mistake."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from services._mesh.resource_limits import ResourceLimits, narrowed

CONNECTIONS = [UUID(int=number) for number in (1, 2, 3)]
TAGS = [("team", "a"), ("team", "b"), ("env", "prod")]
LIMITS = st.builds(
    lambda connections, tags: ResourceLimits(tuple(connections), tuple(tags)),
    st.lists(st.sampled_from(CONNECTIONS), unique=True),
    st.lists(st.sampled_from(TAGS), unique=True),
)


def shows(limits: ResourceLimits | None, connection: UUID, tag: tuple[str, str]) -> bool:
    """Whether a resource of a connection, with one tag, is within limits."""
    if limits is None:
        return True
    return (not limits.connection_ids or connection in limits.connection_ids) and (
        not limits.tags or tag in limits.tags
    )


@settings(max_examples=300, deadline=None)
@given(LIMITS | st.none(), LIMITS | st.none())
def test_both_limits_hold(one: ResourceLimits | None, other: ResourceLimits | None) -> None:
    found = narrowed(one, other)
    for connection in CONNECTIONS:
        for tag in TAGS:
            assert shows(found, connection, tag) == (shows(one, connection, tag) and shows(other, connection, tag))


def test_none_of_them_limits_anything() -> None:
    assert narrowed(None, ResourceLimits(), None) is None
