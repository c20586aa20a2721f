"""The TypeScript client's own tests, by Node's runner: what is sent and repeated, streams, paging, credentials."""

from __future__ import annotations

import re

from tests.support.typescript import node


def test_its_own_tests_pass() -> None:
    said = node("--test", "--test-timeout=30000", "--test-reporter=tap", "tests/*.test.ts")
    counted = {
        name: int(count) for name, count in re.findall(r"^# (pass|fail|cancelled|skipped|todo) (\d+)$", said, re.M)
    }
    assert counted.pop("pass") >= 25, said
    assert not any(counted.values()), said
