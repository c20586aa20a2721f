"""RFC 8785 JSON as the log holds payloads against it. Pure."""

from __future__ import annotations

from typing import Any

from services._mesh import canonical

# Beyond it, RFC 8785's numbers (IEEE 754 doubles) don't hold a whole number exactly.
MAX_INTEGER = canonical.MAX_INTEGER


def is_canonical(content: Any, raw: bytes) -> bool:
    """Whether `raw`, of which `content` was read, is written as RFC 8785 says. Raises CanonicalizationError."""
    return canonical.dumps(content) == raw
