"""A bundle of thirty thousand events: its writer's memory doesn't grow with what it writes."""

from __future__ import annotations

import hashlib
import itertools
import json
import tracemalloc
import zipfile
from pathlib import Path

from tests.unit.test_audit_evidence_writer import chain, finish, log_of, writer


def test_thirty_thousand_events_are_written_in_bounded_memory(tmp_path: Path) -> None:
    count = 30_000
    head, _ = log_of(chain(count))
    made = writer(tmp_path, head, count)
    leaves = chain(count)
    tracemalloc.start()
    try:
        while page := list(itertools.islice(leaves, 200)):
            made.add_events(page)
        finish(made, head)
        size, sha256 = made.files.pack(tmp_path / "bundle.zip")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # 40 bytes for each event, a page, and what the summary shows; the files themselves have a hundred times as much.
    written = sum(made.files.path(name).stat().st_size for name in made.files.digests)
    assert peak < 6 * 1024 * 1024 < written / 5
    assert made.totals.chain_seq == made.disclosed == count
    assert size == (tmp_path / "bundle.zip").stat().st_size
    assert sha256 == hashlib.sha256((tmp_path / "bundle.zip").read_bytes()).hexdigest()
    with zipfile.ZipFile(tmp_path / "bundle.zip") as packed:
        assert sorted(packed.namelist()) == packed.namelist() == sorted(made.files.digests)
        assert len(json.loads(packed.read("approvals.json"))) == count // 500
